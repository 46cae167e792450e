//! `nodes.failover_ready`: a standby that could take over, and what stands in the way of one that
//! could not.

use pg_test::trio::Trio;
use pg_test::{LONG, Server, wait_until};

/// `standby ready: reason; reason`, a line for each standby.
fn readiness(server: &Server) -> Vec<String> {
    server.query_texts(
        "app",
        "SELECT format('%s %s: %s', standby, ready, array_to_string(reasons, '; '))
         FROM nodes.failover_ready ORDER BY link",
    )
}

fn await_readiness(server: &Server, expected: &str) {
    let mut found = Vec::new();
    wait_until(expected, LONG, || {
        found = readiness(server);
        found == [expected]
    });
}

fn standby() -> Trio {
    let trio = Trio::start_with(
        Server::builder("paris"),
        Server::builder("london"),
        Server::builder("oslo"),
    );
    trio.register();
    trio.paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    trio
}

#[test]
fn readiness_follows_the_link() {
    let mut trio = standby();
    let before = readiness(&trio.paris);
    assert!(before.len() == 1 && before[0].starts_with("oslo f: "), "{before:?}");
    for reason in ["not done yet on \"paris\": create slot", "\"oslo\" does not stream"] {
        assert!(before[0].contains(reason), "{before:?}");
    }
    trio.apply();
    await_readiness(&trio.paris, "oslo t: ");
    trio.oslo.sql("app", "SELECT pg_wal_replay_pause()");
    await_readiness(&trio.paris, "oslo f: replay on \"oslo\" is paused");
    trio.oslo.sql("app", "SELECT pg_wal_replay_resume()");
    trio.paris.sql("app", "ALTER SYSTEM SET max_replication_slots = 30");
    trio.paris.restart();
    await_readiness(
        &trio.paris,
        "oslo f: max_replication_slots is 20 on \"oslo\", 30 on \"paris\"",
    );
    // A standby has the registry and shows the same.
    await_readiness(&trio.oslo, "oslo f: max_replication_slots is 20 on \"oslo\", 30 on \"paris\"");
    trio.paris.crash();
    let alone = readiness(&trio.oslo);
    assert!(alone[0].contains("node \"paris\" does not answer, so how far"), "{alone:?}");
}

#[test]
fn a_subscription_needs_its_slot_on_the_standby() {
    let trio = standby();
    trio.paris.sql(
        "app",
        "CREATE TABLE public.parts (id integer PRIMARY KEY);
         SELECT nodes.add_subscription('feed', publisher => 'paris', subscriber => 'london',
             tables => '{public.parts}')",
    );
    trio.london.sql("app", "CREATE TABLE public.parts (id integer PRIMARY KEY)");
    trio.apply();
    let find = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = ";
    let feed = trio.paris.query_one_text("app", &format!("{find}'logical'"));
    let own = trio.paris.query_one_text("app", &format!("{find}'physical'"));
    if Server::major() < 17 {
        let version = Server::major();
        let lost = format!(
            "oslo f: slot \"{feed}\" of subscription \"feed\" is lost in a failover of PostgreSQL \
             {version}: that rows are missed then cannot be ruled out"
        );
        return await_readiness(&trio.paris, &lost);
    }
    let stays = format!(
        "oslo f: slot \"{feed}\" of subscription \"feed\" is not a failover slot: it stays behind"
    );
    await_readiness(&trio.paris, &stays);
    for statement in ["DISABLE", "SET (failover = true)", "ENABLE"] {
        trio.london.sql("app", &format!("ALTER SUBSCRIPTION feed {statement}"));
    }
    let wanting = format!(
        "oslo f: on \"oslo\", slot \"{feed}\" of subscription \"feed\" is not there yet; \
         sync_replication_slots is off on \"oslo\", and failover slots need it; \
         synchronized_standby_slots on \"paris\" does not name \"{own}\": a subscriber may get \
         ahead of \"oslo\""
    );
    await_readiness(&trio.paris, &wanting);
    trio.paris.sql("app", &format!("ALTER SYSTEM SET synchronized_standby_slots = '{own}'"));
    trio.oslo.sql("app", "ALTER SYSTEM SET sync_replication_slots = on");
    for server in [&trio.paris, &trio.oslo] {
        server.reload();
    }
    let mut next = 0;
    wait_until("the slot is synchronized", LONG, || {
        // It becomes ready when the subscription moves on.
        next += 1;
        trio.paris.sql(
            "app",
            &format!("INSERT INTO parts VALUES ({next}); SELECT pg_log_standby_snapshot()"),
        );
        readiness(&trio.paris) == ["oslo t: "]
    });
}
