//! Commits of a primary wait for synchronous standbys: those that the links name, as many as they
//! say, and never without saying so where none of them answers.

use pg_test::trio::{add_node, apply, plan};
use pg_test::watcher::watching;
use pg_test::writer::Writer;
use pg_test::{Builder, LONG, Psql, Server, wait_until};
use std::thread::JoinHandle;

const NAMES: &str = "SELECT regexp_replace(current_setting('synchronous_standby_names'),
    'nodes_[0-9a-f]{8}_', '', 'g')";

/// Paris with its standbys oslo and rome, which are called what breaks careless quoting.
struct Cluster {
    paris: Server,
    oslo: Server,
    rome: Server,
}

const OSLO: &str = "we\"ird";
const ROME: &str = "o'slo";

fn cluster_of(paris: Builder) -> Cluster {
    let paris = paris.start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE TABLE items (id integer PRIMARY KEY)");
    let [oslo, rome] = ["oslo", "rome"].map(|name| paris.clone_standby(name));
    for (name, server) in [("paris", &paris), (OSLO, &oslo), (ROME, &rome)] {
        add_node(&paris, name, server);
    }
    Cluster { paris, oslo, rome }
}

impl Cluster {
    /// Both are standbys, for one of which commits wait.
    fn link(&self) {
        self.paris.sql(
            "app",
            "SELECT nodes.add_standby('we\"ird', 'paris', synchronous => true);
             SELECT nodes.add_standby('o''slo', 'paris', synchronous => true)",
        );
    }

    #[track_caller]
    fn await_names(&self, primary: &Server, expected: &str) {
        let names = || primary.query_one_text("app", NAMES);
        wait_until(&format!("{} waits for {expected}", primary.name()), LONG, || {
            names() == expected
        });
    }

    /// A commit on paris, of a session that nobody waits for.
    fn commit(&self, id: u32) -> JoinHandle<Psql> {
        self.paris.psql_in_background("app", &format!("INSERT INTO items VALUES ({id})"))
    }

    fn await_waiting_commit(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        wait_until("a commit waits", LONG, || self.paris.query_one_text("app", waiting) != "0");
    }
}

#[track_caller]
fn ends(commit: JoinHandle<Psql>) {
    let said = commit.join().expect("it is there");
    assert!(said.ok, "{said}");
}

#[test]
fn commits_wait_for_those_that_links_name() {
    let mut cluster = cluster_of(Server::builder("paris"));
    let paris = &cluster.paris;
    cluster.link();
    let said = apply(paris);
    assert!(!said.contains("WARNING"), "{said}");
    cluster.await_names(paris, "ANY 1 (\"1\", \"2\")");
    assert_eq!(plan(paris), [""; 0]);
    paris.sql(
        "app",
        "SELECT nodes.alter_link('o''slo', options =>
             '{\"synchronous_number\": 2, \"synchronous_method\": \"first\"}')",
    );
    apply(paris);
    cluster.await_names(paris, "FIRST 2 (\"1\", \"2\")");
    let states = "SELECT DISTINCT sync_state FROM pg_stat_replication";
    wait_until("both are synchronous", LONG, || paris.query_texts("app", states) == ["sync"]);
    cluster.oslo.pause();
    let commit = cluster.commit(1);
    cluster.await_waiting_commit();
    cluster.oslo.resume();
    ends(commit);
    // A standby that is down is taken out by those who say so, however many commits wait.
    cluster.rome.stop();
    let commit = cluster.commit(2);
    cluster.await_waiting_commit();
    let paris = &cluster.paris;
    paris.sql("app", "SELECT nodes.remove_link('o''slo')");
    let said = apply(paris);
    assert!(said.contains("alter setting") && said.contains("drop slot"), "{said}");
    cluster.await_names(paris, "ANY 1 (\"1\")");
    ends(commit);
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(paris.query_one_text("app", slots), "1");
    paris.sql("app", "SELECT nodes.alter_link('we\"ird', synchronous => false)");
    apply(paris);
    cluster.await_names(paris, "");
}

#[test]
fn what_would_block_is_not_set_and_what_others_set_stays() {
    let mut cluster = cluster_of(Server::builder("paris"));
    cluster.rome.stop();
    cluster.link();
    cluster
        .paris
        .sql("app", "SELECT nodes.alter_link('we\"ird', options => '{\"synchronous_number\": 2}')");
    let said = apply(&cluster.paris);
    let why = "commits on \"paris\" would wait: of the synchronous standbys (\"we\"ird\", \"o'slo\") \
               1 streams, 2 must";
    assert!(said.contains(why), "{said}");
    cluster.await_names(&cluster.paris, "");
    cluster.rome.start_again();
    apply(&cluster.paris);
    cluster.await_names(&cluster.paris, "ANY 2 (\"1\", \"2\")");
    let paris = &cluster.paris;
    paris.sql("app", "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (*)'");
    paris.reload();
    cluster.await_names(paris, "FIRST 1 (*)");
    let refused = |call: &str| {
        let said = paris.psql("app", call);
        assert!(!said.ok && said.output.contains("which is not ours (RG09)"), "{said}");
    };
    refused("CALL nodes.apply()");
    paris.sql("app", "SELECT nodes.alter_link('we\"ird', synchronous => false)");
    refused("CALL nodes.apply()");
    paris.sql("app", "SELECT nodes.alter_link('o''slo', synchronous => false)");
    apply(paris);
    cluster.await_names(paris, "FIRST 1 (*)");
}

#[test]
fn the_worker_tells_when_commits_wait() {
    let mut cluster = cluster_of(watching("paris"));
    cluster.paris.sql("app", "SELECT nodes.add_standby('we\"ird', 'paris', synchronous => true)");
    cluster.await_names(&cluster.paris, "ANY 1 (\"1\")");
    let told = "SELECT kind FROM nodes.event WHERE kind LIKE 'synchronous%' ORDER BY id";
    let await_told = |paris: &Server, expected: &[&str]| {
        wait_until(&format!("{expected:?} is told"), LONG, || {
            paris.query_texts("app", told) == expected
        });
    };
    let (blocked, passing) = ("synchronous_blocked", "synchronous_ok");
    cluster.oslo.crash();
    await_told(&cluster.paris, &[blocked]);
    let words = "SELECT format('%s|%s|%s', node, severity, message) FROM nodes.event
        WHERE kind = 'synchronous_blocked'";
    let words = cluster.paris.query_one_text("app", words);
    let expected = "paris|critical|commits on node \"paris\" wait: 0 of the synchronous standbys \
                    stream, 1 must";
    assert!(words.starts_with(expected), "{words}");
    let said = "SELECT string_agg(fact, ' ') FROM nodes.explain('paris')";
    let said = cluster.paris.query_one_text("app", said);
    assert!(said.contains("commits on \"paris\" wait") && said.contains("we\"ird"), "{said}");
    let reason = "SELECT reason FROM nodes.link_status WHERE link = 'we\"ird'";
    wait_until("the link says so too", LONG, || {
        cluster.paris.query_one_text("app", reason).contains("commits on \"paris\" wait for it")
    });
    // Another worker knows what was told.
    let worker = cluster.paris.await_worker("app");
    cluster.paris.sql("app", &format!("SELECT pg_terminate_backend({worker})"));
    wait_until("there is another worker", LONG, || {
        cluster.paris.worker("app").is_some_and(|other| other != worker)
    });
    cluster.paris.await_health(OSLO, "down");
    cluster.oslo.start_again();
    await_told(&cluster.paris, &[blocked, passing]);
    // One that hangs keeps its connection: that a commit waits is all there is to see.
    cluster.oslo.pause();
    let commit = cluster.commit(1);
    await_told(&cluster.paris, &[blocked, passing, blocked]);
    cluster.oslo.resume();
    ends(commit);
    await_told(&cluster.paris, &[blocked, passing, blocked, passing]);
    // The worker does what is said, though the primary waits.
    cluster.oslo.stop();
    let commit = cluster.commit(2);
    cluster.await_waiting_commit();
    cluster.paris.sql("app", "SELECT nodes.alter_link('we\"ird', synchronous => false)");
    cluster.await_names(&cluster.paris, "");
    ends(commit);
}

/// One setting, of which each link may speak: what is said of one is brought about for all, and what
/// a person changes by hand is left to him.
#[test]
fn the_worker_follows_what_links_say() {
    let mut cluster = cluster_of(watching("paris"));
    cluster.link();
    cluster.await_names(&cluster.paris, "ANY 1 (\"1\", \"2\")");
    let settled = |cluster: &Cluster| {
        for link in [OSLO, "o''slo"] {
            cluster.paris.await_link(link, "streaming");
        }
        let pending = "SELECT name FROM nodes.link WHERE pending";
        wait_until("nothing is pending", LONG, || {
            cluster.paris.query_texts("app", pending).is_empty()
        });
    };
    settled(&cluster);
    let options =
        |options: &str| format!("SELECT nodes.alter_link('o''slo', options => '{{{options}}}')");
    cluster.paris.sql("app", &options("\"synchronous_number\": 2"));
    cluster.await_names(&cluster.paris, "ANY 2 (\"1\", \"2\")");
    settled(&cluster);
    cluster.paris.sql("app", &options(""));
    cluster.await_names(&cluster.paris, "ANY 1 (\"1\", \"2\")");
    settled(&cluster);
    cluster.paris.sql("app", "ALTER SYSTEM RESET synchronous_standby_names");
    cluster.paris.reload();
    cluster.paris.await_link(OSLO, "drifted");
    cluster.await_names(&cluster.paris, "");
    apply(&cluster.paris);
    cluster.await_names(&cluster.paris, "ANY 1 (\"1\", \"2\")");
    settled(&cluster);
    // With nobody to answer, who asks for another standby need not wait for it either.
    cluster.oslo.stop();
    cluster.rome.stop();
    let commit = cluster.commit(1);
    cluster.await_waiting_commit();
    cluster.paris.sql("app", "SELECT nodes.remove_link('o''slo')");
    cluster.await_names(&cluster.paris, "ANY 1 (\"1\")");
    let registry = cluster.paris.psql("app", "SELECT nodes.rename_node('o''slo', 'rome')");
    assert!(registry.ok, "{registry}");
    cluster.oslo.start_again();
    ends(commit);
    cluster.paris.await_link(OSLO, "streaming");
}

/// Whoever is the primary waits for the others, and none of the others for anybody.
#[test]
fn the_setting_moves_with_the_primary() {
    let mut cluster = cluster_of(Server::builder("paris"));
    cluster.link();
    apply(&cluster.paris);
    let registered = "SELECT count(*) FROM nodes.link WHERE NOT pending";
    for standby in [&cluster.oslo, &cluster.rome] {
        wait_until("the registry is there", LONG, || {
            standby.query_one_text("app", registered) == "2"
        });
    }
    let writer = Writer::start(&[&cluster.paris, &cluster.oslo, &cluster.rome], "items");
    let said = cluster.oslo.psql("app", "CALL nodes.switchover('we\"ird')");
    assert!(said.ok && !said.output.contains("WARNING"), "{said}");
    cluster.await_names(&cluster.oslo, "ANY 1 (\"1\", \"2\")");
    cluster.await_names(&cluster.paris, "");
    cluster.await_names(&cluster.rome, "");
    assert_eq!(plan(&cluster.oslo), [""; 0]);
    let count = |server: &Server| server.query_one_text("app", "SELECT count(*) FROM items");
    let before = count(&cluster.oslo);
    wait_until("it is written to", LONG, || count(&cluster.oslo) != before);
    let written = writer.finish().numbers;
    // What was acknowledged is on one of the two at least.
    cluster.oslo.crash();
    let kept = |server: &Server| count(server).parse::<usize>().expect("a number");
    wait_until("what was acknowledged is there", LONG, || {
        kept(&cluster.paris).max(kept(&cluster.rome)) >= written.len()
    });
    let said = cluster.rome.psql("app", "CALL nodes.promote('o''slo', force => true)");
    assert!(said.ok, "{said}");
    cluster.await_names(&cluster.rome, "ANY 1 (\"1\")");
    cluster.await_names(&cluster.paris, "");
    cluster.rome.sql("app", "INSERT INTO items VALUES (-1)");
    let last = "SELECT count(*) FROM items WHERE id = -1";
    wait_until("paris follows", LONG, || cluster.paris.query_one_text("app", last) == "1");
}
