//! Links through TLS: both sides must prove who they are, the server with a certificate for its
//! name, the client with one of the same authority. Another name is refused, with a reason.

use pg_test::tls::Authority;
use pg_test::trio::{apply, plan};
use pg_test::{LONG, Server, wait_until};

/// Paris with pg_nodes, and london, which lets nobody in without TLS and a certificate.
struct World {
    paris: Server,
    london: Server,
    /// What a conninfo needs besides the host.
    rest: String,
}

/// `None`: these servers were built without TLS.
fn world() -> Option<World> {
    if !Server::supports_tls() {
        println!("skipped: this PostgreSQL was built without TLS");
        return None;
    }
    let authority = Authority::new();
    let paris = Server::builder("paris").start();
    let london = Server::builder("london")
        .tls(&authority, "london.test")
        .hba("hostssl all all 127.0.0.1/32 cert\nhostssl replication all 127.0.0.1/32 cert")
        .start();
    for server in [&paris, &london] {
        server.create_db("app");
        server.sql("app", "CREATE TABLE public.orders (id integer PRIMARY KEY, item text)");
    }
    london.sql(
        "app",
        "INSERT INTO orders VALUES (1, 'lamp');
         CREATE SCHEMA inventory; CREATE TABLE inventory.items AS SELECT 'chair' AS item",
    );
    let client = authority.client("postgres");
    let rest = format!(
        "hostaddr=127.0.0.1 port={} user=postgres dbname=app \
         sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
        london.port(),
        paris.write_file("root.crt", &authority.pem()).display(),
        paris.write_file("client.crt", &client.certificate).display(),
        paris.write_file("client.key", &client.key).display(),
    );
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    let conninfo = paris.conninfo("app");
    paris.sql("app", &format!("SELECT nodes.add_node('paris', '{conninfo}')"));
    Some(World { paris, london, rest })
}

impl World {
    fn link(&self, host: &str) {
        self.paris.sql(
            "app",
            &format!(
                "SELECT nodes.add_node('london', 'host={host} {}');
                 SELECT nodes.add_subscription('feed', 'london', tables => '{{public.orders}}');
                 SELECT nodes.add_foreign_schema('stock', 'london', 'inventory')",
                self.rest
            ),
        );
    }

    fn links_work_and_go(&self) {
        let World { paris, london, .. } = self;
        apply(paris);
        assert_eq!(plan(paris), [""; 0], "after apply the plan is empty");
        london.sql("app", "INSERT INTO orders VALUES (2, 'table')");
        wait_until("both orders are there", LONG, || {
            paris.query_texts("app", "SELECT item FROM orders ORDER BY id") == ["lamp", "table"]
        });
        assert_eq!(paris.query_texts("app", "SELECT item FROM stock.items"), ["chair"]);
        let plain = "SELECT application_name FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
            WHERE client_addr IS NOT NULL AND NOT ssl";
        assert_eq!(london.query_texts("app", plain), [""; 0], "nobody came without TLS");
        paris.sql("app", "CALL nodes.teardown()");
        paris.assert_no_residue("app");
        london.assert_no_residue("app");
    }
}

#[test]
fn links_go_through_tls() {
    let Some(world) = world() else { return };
    world.link("london.test");
    world.links_work_and_go();
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let Some(world) = world() else { return };
    world.link("paris.test");
    let rows = plan(&world.paris);
    let reason = "server certificate for \"london.test\" does not match host name \"paris.test\"";
    assert!(!rows.is_empty() && rows.iter().all(|row| row.contains(reason)), "{rows:#?}");
    let said = world.paris.psql("app", "CALL nodes.apply()");
    assert!(said.output.contains(reason), "{said}");
    world.paris.assert_no_residue("app");
    world.london.assert_no_residue("app");

    let alter = format!("SELECT nodes.alter_node('london', 'host=london.test {}')", world.rest);
    world.paris.sql("app", &alter);
    world.links_work_and_go();
}
