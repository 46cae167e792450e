//! A standby of a standby: whoever becomes the primary, and whoever dies, all follow, directly or
//! not, and lose nothing.

use pg_test::trio::{add_node, apply, plan};
use pg_test::writer::Writer;
use pg_test::{LONG, Server, wait_until};

/// At first oslo follows london, and london follows paris.
struct Cascade {
    paris: Server,
    london: Server,
    oslo: Server,
}

const FOLLOW: &str = "
    SELECT nodes.add_standby('london', primary_node => 'paris');
    SELECT nodes.add_standby('oslo', primary_node => 'london')";

fn cascade() -> Cascade {
    let builder =
        |name| Server::builder(name).conf("wal_log_hints", "on").conf("full_page_writes", "on");
    let paris = builder("paris").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE TABLE orders (id integer PRIMARY KEY)");
    let [london, oslo] = ["london", "oslo"].map(|name| paris.clone_standby_with(builder(name)));
    for (name, server) in [("paris", &paris), ("london", &london), ("oslo", &oslo)] {
        add_node(&paris, name, server);
    }
    paris.sql("app", FOLLOW);
    apply(&paris);
    let cascade = Cascade { paris, london, oslo };
    cascade.assert_tree("paris", &[("paris", &["london"]), ("london", &["oslo"])]);
    // No commit is acknowledged that no standby has.
    for server in cascade.all() {
        server.append_conf("synchronous_standby_names = '*'");
        server.reload();
    }
    cascade
}

impl Cascade {
    fn all(&self) -> [&Server; 3] {
        [&self.paris, &self.london, &self.oslo]
    }

    fn server(&self, name: &str) -> &Server {
        self.all().into_iter().find(|server| server.name() == name).expect("one of the three")
    }

    /// Who streams from whom, each by a slot of its own; nobody else keeps WAL, and nothing is
    /// left to do.
    #[track_caller]
    fn assert_tree(&self, primary: &str, tree: &[(&str, &[&str])]) {
        assert_eq!(plan(self.server(primary)), [""; 0], "nothing is left to do");
        for server in self.all() {
            let above = tree.iter().find(|(_, below)| below.contains(&server.name()));
            let place = "SELECT CASE WHEN pg_is_in_recovery()
                THEN substring(current_setting('primary_conninfo') FROM 'port=(\\d+)') ELSE '' END";
            let port =
                above.map_or(String::new(), |(name, _)| self.server(name).port().to_string());
            wait_until(&format!("{} is in its place", server.name()), LONG, || {
                server.query_one_text("app", place) == port
            });
            let below = tree.iter().find(|(name, _)| *name == server.name());
            let below = below.map_or(0, |(_, below)| below.len());
            let readers = "SELECT format('%s %s %s',
                (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'),
                count(*), count(*) FILTER (WHERE active)) FROM pg_replication_slots";
            let mut found = String::new();
            wait_until(&format!("{} feeds {below}", server.name()), LONG, || {
                found = server.query_one_text("app", readers);
                found == format!("{below} {below} {below}")
            });
        }
    }

    /// Everybody gets what is written to the primary.
    #[track_caller]
    fn assert_writes_arrive(&self, primary: &str) {
        let count = |server: &Server| {
            let count = server.query_one_text("app", "SELECT count(*) FROM orders");
            count.parse::<usize>().expect("a number")
        };
        let primary = self.server(primary);
        let before = count(primary);
        for server in self.all() {
            wait_until(&format!("{} gets more", server.name()), LONG, || count(server) > before);
        }
    }

    /// Until the last of a chain has replayed all that the one before it has.
    fn await_same_wal(&self, chain: [&str; 2]) {
        let replayed = "SELECT pg_last_wal_replay_lsn()";
        let [above, below] = chain.map(|name| self.server(name));
        wait_until("it has all", LONG, || {
            above.query_one_text("app", replayed) == below.query_one_text("app", replayed)
        });
    }

    #[track_caller]
    fn call(&self, on: &str, call: &str) {
        let said = self.server(on).psql("app", call);
        let done = ["all links follow", "is a standby of"];
        assert!(said.ok && done.iter().any(|text| said.output.contains(text)), "{said}");
        assert!(!said.output.contains("WARNING"), "{said}");
    }

    /// Has a standby follow another server than now.
    fn follow(&self, registry: &str, standby: &str, upstream: &str) {
        let registry = self.server(registry);
        registry.sql(
            "app",
            &format!(
                "SELECT nodes.remove_link(name) FROM nodes.link
                 WHERE to_node = (SELECT id FROM nodes.node WHERE name = '{standby}');
                 SELECT nodes.add_standby('{standby}', primary_node => '{upstream}',
                     name => '{standby} of {upstream}')"
            ),
        );
        apply(registry);
    }
}

#[test]
fn all_follow_whoever_is_the_primary() {
    let mut on = cascade();
    let writer = Writer::start(&on.all(), "orders");
    on.assert_writes_arrive("paris");
    on.call("oslo", "CALL nodes.switchover('london')");
    on.assert_tree("london", &[("london", &["paris", "oslo"])]);
    on.assert_writes_arrive("london");
    on.call("oslo", "CALL nodes.switchover('paris')");
    on.assert_tree("paris", &[("paris", &["london", "oslo"])]);
    on.follow("paris", "oslo", "london");
    on.assert_tree("paris", &[("paris", &["london"]), ("london", &["oslo"])]);
    on.assert_writes_arrive("paris");
    on.paris.crash();
    on.call("oslo", "CALL nodes.promote('london')");
    on.paris.start_again();
    on.call("london", "CALL nodes.rejoin('paris')");
    on.assert_tree("london", &[("london", &["paris", "oslo"])]);
    on.assert_writes_arrive("london");
    // The last of a chain takes over.
    on.follow("london", "oslo", "paris");
    on.assert_tree("london", &[("london", &["paris"]), ("paris", &["oslo"])]);
    on.call("oslo", "CALL nodes.switchover('oslo')");
    on.assert_tree("oslo", &[("oslo", &["london", "paris"])]);
    on.assert_writes_arrive("oslo");
    // And once more, when the first of it dies.
    on.follow("oslo", "paris", "london");
    on.assert_tree("oslo", &[("oslo", &["london"]), ("london", &["paris"])]);
    on.assert_writes_arrive("oslo");
    on.oslo.crash();
    on.await_same_wal(["london", "paris"]);
    on.call("london", "CALL nodes.promote('paris')");
    on.oslo.start_again();
    on.call("paris", "CALL nodes.rejoin('oslo')");
    on.assert_tree("paris", &[("paris", &["london", "oslo"])]);
    on.assert_writes_arrive("paris");
    writer.finish().assert_kept(&on.paris, "orders");
}
