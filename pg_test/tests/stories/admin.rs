//! Nodes that are reached as roles without superuser. PostgreSQL 15 lets only superusers
//! subscribe, and the plan says so; from 16 on `pg_create_subscription` and a password will do.

use pg_test::trio::{apply, plan};
use pg_test::{LONG, Server, wait_until};

/// Role `admin` owns the database `app` and all that is in it, and may replicate.
const ADMIN: &str = "
    CREATE ROLE admin LOGIN REPLICATION PASSWORD 's3cret';
    ALTER DATABASE app OWNER TO admin;
    ALTER SCHEMA public OWNER TO admin;
    SET ROLE admin;
    CREATE TABLE public.orders (id integer PRIMARY KEY, item text);";

/// Paris is where pg_nodes is; london publishes, oslo subscribes.
struct World {
    paris: Server,
    london: Server,
    oslo: Server,
}

fn world() -> World {
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").password("boss").start();
    let oslo = Server::builder("oslo").password("boss").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes");
    for (name, server) in [("london", &london), ("oslo", &oslo)] {
        server.create_db("app");
        server.sql("app", ADMIN);
        let conninfo = server.conninfo("app").replace("user=postgres", "user=admin");
        let add = format!("SELECT nodes.add_node('{name}', '{conninfo} password=s3cret')");
        paris.sql("app", &add);
    }
    london.sql("app", "INSERT INTO orders VALUES (1, 'lamp')");
    paris.sql("app", "SELECT nodes.add_subscription('feed', 'london', 'oslo', '{public.orders}')");
    World { paris, london, oslo }
}

impl World {
    fn link_works(&self) {
        apply(&self.paris);
        assert_eq!(plan(&self.paris), [""; 0], "after apply the plan is empty");
        self.london.sql("app", "INSERT INTO orders VALUES (2, 'chair')");
        wait_until("both rows are there", LONG, || {
            self.oslo.query_texts("app", "SELECT item FROM orders ORDER BY id") == ["lamp", "chair"]
        });
    }

    fn end(&self) {
        self.paris.sql("app", "CALL nodes.teardown()");
        for server in [&self.paris, &self.london, &self.oslo] {
            server.assert_no_residue("app");
        }
    }

    /// The only row of the plan, which must be a problem.
    fn problem(&self) -> String {
        let plan = plan(&self.paris);
        let refused = self.paris.psql("app", "CALL nodes.apply()");
        assert!(!refused.ok && refused.output.contains("could not be made right"), "{refused}");
        for server in [&self.paris, &self.london, &self.oslo] {
            server.assert_no_residue("app");
        }
        assert_eq!(plan.len(), 1, "{plan:?}");
        plan[0].clone()
    }
}

#[test]
fn a_subscriber_needs_the_right() {
    let world = world();
    let problem = world.problem();
    if Server::major() < 16 {
        assert!(
            problem.contains("role \"admin\" on node \"oslo\" is not a superuser"),
            "{problem}"
        );
        assert!(problem.contains("admin_conninfo"), "{problem}");
        let boss = format!("{} password=boss", world.oslo.conninfo("app"));
        let alter = format!("SELECT nodes.alter_node('oslo', admin_conninfo => '{boss}')");
        world.paris.sql("app", &alter);
    } else {
        assert!(problem.contains("may not create subscriptions"), "{problem}");
        world.oslo.sql("app", "GRANT pg_create_subscription TO admin");
    }
    world.link_works();
    world.end();
}

#[test]
fn a_publisher_needs_the_right() {
    let world = world();
    world.oslo.sql("app", "ALTER ROLE admin SUPERUSER");
    world.london.sql("app", "ALTER ROLE admin NOREPLICATION");
    let problem = world.problem();
    assert!(problem.contains("role \"admin\" on node \"london\" may not replicate"), "{problem}");
    world.london.sql("app", "ALTER ROLE admin REPLICATION");
    world.link_works();
    world.end();
}

#[test]
fn a_publishers_tables_are_somebody_elses() {
    let world = world();
    world.oslo.sql("app", "ALTER ROLE admin SUPERUSER");
    world
        .london
        .sql("app", "ALTER TABLE orders OWNER TO postgres; GRANT SELECT ON orders TO admin");
    let problem = world.problem();
    assert!(problem.contains("is not the owner of table \"public\".\"orders\""), "{problem}");
    world.london.sql("app", "ALTER TABLE orders OWNER TO admin");
    world.link_works();
    world.end();
}

#[test]
fn who_administers_a_publisher_needs_the_rights() {
    let world = world();
    world.oslo.sql("app", "ALTER ROLE admin SUPERUSER");
    world.london.sql("app", "CREATE ROLE link LOGIN REPLICATION PASSWORD 's3cret'");
    world.london.sql("app", "GRANT SELECT ON orders TO link; ALTER ROLE admin NOREPLICATION");
    let admin = world.london.conninfo("app").replace("user=postgres", "user=admin");
    let alter = format!(
        "SELECT nodes.alter_node('london', '{} password=s3cret',
                                 admin_conninfo => '{admin} password=s3cret')",
        admin.replace("user=admin", "user=link")
    );
    world.paris.sql("app", &alter);
    let problem = world.problem();
    assert!(problem.contains("role \"admin\" on node \"london\" may not make slots"), "{problem}");
    world.london.sql("app", "ALTER ROLE admin REPLICATION; ALTER DATABASE app OWNER TO postgres");
    let problem = world.problem();
    assert!(problem.contains("may not create publications HINT Run GRANT CREATE"), "{problem}");
    world.london.sql("app", "GRANT CREATE ON DATABASE app TO admin");
    world.link_works();
    world.end();
}

#[test]
fn a_foreign_schema_needs_no_more_than_its_rights() {
    let world = world();
    world.paris.sql("app", "SELECT nodes.remove_link('feed')");
    apply(&world.paris);
    world.paris.sql(
        "app",
        "SELECT nodes.add_foreign_schema('stock', 'london', 'public', on_node => 'oslo')",
    );
    world.oslo.sql("app", "CREATE EXTENSION postgres_fdw");
    let problem = world.problem();
    assert!(problem.contains("may not use postgres_fdw HINT Run GRANT USAGE"), "{problem}");
    world.oslo.sql("app", "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO admin");
    apply(&world.paris);
    assert_eq!(plan(&world.paris), [""; 0], "after apply the plan is empty");
    for role in ["admin", "postgres"] {
        let count = format!("SET SESSION AUTHORIZATION {role}; SELECT item FROM stock.orders");
        assert_eq!(world.oslo.query_texts("app", &count), ["lamp"]);
    }
    world.end();
}
