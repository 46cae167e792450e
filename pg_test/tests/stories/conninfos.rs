//! A node may be written in every way that libpq reads: as a URI, with several hosts of which
//! the first is dead, through a service file, with a passfile. A subscription and a foreign
//! schema work with each, and a change from one way to the other drops nothing.

use pg_test::trio::{add_node, apply, plan};
use pg_test::{LONG, Server, wait_until};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const LINKS: &str = "
    SELECT nodes.add_subscription('feed', publisher => 'london', subscriber => 'paris',
        tables => '{public.orders}');
    SELECT nodes.add_foreign_schema('stock', node => 'london', remote_schema => 'inventory',
        on_node => 'paris')";

const OIDS: &str = "SELECT string_agg(oid::text, ' ') FROM (
    SELECT oid FROM pg_subscription UNION ALL SELECT oid FROM pg_foreign_server
    UNION ALL SELECT oid FROM pg_class WHERE relkind = 'f') made";

#[test]
fn every_way_to_write_a_conninfo_works() {
    let files = tempfile::tempdir().expect("a directory for the service file");
    let service_file = files.path().join("pg_service.conf");
    let paris =
        Server::builder("paris").env("PGSERVICEFILE", &service_file.display().to_string()).start();
    let london = Server::builder("london").password("open sesame").start();
    prepare(&paris, &london);
    let port = london.port();
    let passfile = write(files.path(), "passfile", "*:*:*:*:open sesame\n", 0o644);
    let service = format!("[london]\nhost=127.0.0.1\nport={port}\ndbname=app\nuser=postgres\n");
    write(files.path(), "pg_service.conf", &service, 0o644);
    pg_test::user::give(files.path());
    make_private(Path::new(&passfile));

    assert!(pg_test::is_port_free(1), "nobody listens on port 1");
    let ways = [
        format!("postgresql://postgres:open%20sesame@127.0.0.1:{port}/app?connect_timeout=3"),
        format!(
            "host=127.0.0.1,127.0.0.1 port=1,{port} dbname=app user=postgres password='open sesame'"
        ),
        format!("host=127.0.0.1 port={port} dbname=app user=postgres passfile={passfile}"),
        "service=london password='open sesame'".to_owned(),
    ];
    add_node(&paris, "paris", &paris);
    query(&paris, "SELECT nodes.add_node('london', $1)", &ways[0]);
    paris.sql("app", LINKS);
    apply(&paris);
    let oids = paris.query_one_text("app", OIDS);
    for (id, way) in (100..).zip(&ways) {
        // A password in a conninfo that has none is left as it is; a new way starts without.
        query(&paris, "SELECT nodes.alter_node('london', $1, password => '')", way);
        query(&paris, "SELECT nodes.alter_node('london', $1)", way);
        apply(&paris);
        assert_eq!(plan(&paris), [""; 0], "with {way}");
        rows_flow(&paris, &london, id);
    }
    assert_eq!(paris.query_one_text("app", OIDS), oids, "nothing was dropped");
    paris.sql("app", "CALL nodes.teardown()");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}

fn prepare(paris: &Server, london: &Server) {
    for server in [paris, london] {
        server.create_db("app");
        server.sql("app", "CREATE TABLE public.orders (id int PRIMARY KEY)");
    }
    london.sql(
        "app",
        "CREATE SCHEMA inventory; CREATE TABLE inventory.items (id int); INSERT INTO inventory.items VALUES (1)",
    );
    paris.sql("app", "CREATE EXTENSION pg_nodes");
}

fn query(server: &Server, sql: &str, argument: &str) {
    server
        .client("app")
        .query(sql, &[&argument])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn write(directory: &Path, name: &str, text: &str, mode: u32) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a file in a directory of ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    path.display().to_string()
}

/// libpq ignores a passfile that others may read, and the servers' user must own it.
fn make_private(path: &Path) {
    pg_test::user::give(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
}

fn rows_flow(paris: &Server, london: &Server, id: i32) {
    london.sql("app", &format!("INSERT INTO orders VALUES ({id})"));
    let arrived = format!("SELECT count(*)::text FROM orders WHERE id = {id}");
    wait_until("the order to arrive", LONG, || paris.query_one_text("app", &arrived) == "1");
    assert_eq!(paris.query_one_text("app", "SELECT count(*)::text FROM stock.items"), "1");
}
