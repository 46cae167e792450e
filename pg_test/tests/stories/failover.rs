//! `nodes.failover_ready`: a standby that could take over, and what stands in the way of one that
//! could not.

use pg_test::trio::{Trio, apply};
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

/// London subscribes to a table of paris.
fn feed(trio: &Trio) {
    trio.paris.sql(
        "app",
        "CREATE TABLE public.parts (id integer PRIMARY KEY);
         SELECT nodes.add_subscription('feed', publisher => 'paris', subscriber => 'london',
             tables => '{public.parts}')",
    );
    trio.london.sql("app", "CREATE TABLE public.parts (id integer PRIMARY KEY)");
    trio.apply();
}

#[test]
fn a_subscription_needs_its_slot_on_the_standby() {
    let trio = standby();
    feed(&trio);
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
    // The plan has done all of it; the slot becomes ready when the subscription moves on.
    let mut next = 0;
    wait_until("the slot is synchronized", LONG, || {
        next += 1;
        trio.paris.sql(
            "app",
            &format!("INSERT INTO parts VALUES ({next}); SELECT pg_log_standby_snapshot()"),
        );
        readiness(&trio.paris) == ["oslo t: "]
    });
    assert_eq!(trio.plan(), [""; 0], "nothing is left to do");
    trio.oslo.sql("app", "ALTER SYSTEM SET hot_standby_feedback = off");
    trio.oslo.reload();
    wait_until("that feedback is off is told", LONG, || {
        readiness(&trio.paris)[0].contains("hot_standby_feedback is off on \"oslo\"")
    });
    trio.apply();
    await_readiness(&trio.paris, "oslo t: ");
    let synced = format!(
        "SELECT format('%s %s', failover, synced) FROM pg_replication_slots
         WHERE slot_name = '{feed}'"
    );
    assert_eq!(trio.oslo.query_texts("app", &synced), ["t t"]);
    let names = "SHOW synchronized_standby_slots";
    assert_eq!(trio.paris.query_one_text("app", names), own);
    // What a person names there stays.
    trio.paris.sql("app", "SELECT pg_create_physical_replication_slot('theirs')");
    trio.paris
        .sql("app", &format!("ALTER SYSTEM SET synchronized_standby_slots = '{own}, theirs'"));
    trio.paris.reload();
    assert_eq!(trio.plan(), [""; 0], "theirs is theirs");
    trio.paris.sql("app", "SELECT nodes.remove_link('oslo')");
    trio.apply();
    wait_until("the setting is in force", LONG, || {
        trio.paris.query_one_text("app", names) == "theirs"
    });
    let left = "SELECT name FROM pg_settings WHERE name = 'sync_replication_slots'
        AND setting = 'on'";
    wait_until("oslo copies no more", LONG, || trio.oslo.query_texts("app", left).is_empty());
}

/// A row for each logical slot of the primary, those of others too.
#[test]
fn every_logical_slot_is_told_of() {
    let trio = standby();
    feed(&trio);
    trio.paris.sql("app", "SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')");
    let slots = "SELECT format('%s %s: %s %s', subscription, slot = 'theirs', ready,
            array_to_string(rules, ' ')) FROM nodes.failover_slots WHERE standby = 'oslo'
        ORDER BY slot = 'theirs'";
    let expected = match Server::major() {
        17.. => ["feed f: t ", " t: f FR21"],
        _ => ["feed f: f FR20", " t: f FR20"],
    };
    wait_until("its slot is ready", LONG, || {
        if Server::major() >= 17 {
            trio.paris.sql("app", "SELECT pg_log_standby_snapshot()");
        }
        trio.paris.query_texts("app", slots) == expected
    });
    let told = readiness(&trio.paris);
    assert!(told[0].starts_with("oslo f: ") && told[0].contains("slot \"theirs\" is "), "{told:?}");
}

/// The settings of both servers, each said in the words of what is wrong.
#[test]
fn settings_that_are_wrong_are_told() {
    let archiving = |name| {
        let command = if name == "paris" { "false" } else { "true" };
        Server::builder(name).conf("archive_mode", "on").conf("archive_command", command)
    };
    let trio = Trio::start_with(archiving("paris"), Server::builder("london"), archiving("oslo"));
    trio.register();
    trio.paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    trio.apply();
    trio.paris.sql("app", "CREATE TABLE public.parts (id integer); SELECT pg_switch_wal()");
    await_readiness(&trio.paris, "oslo f: archiving on \"paris\" fails");
    trio.paris.sql("app", "ALTER SYSTEM SET archive_command = 'true'");
    trio.paris.reload();
    await_readiness(&trio.paris, "oslo t: ");

    let mut oslo = trio.oslo;
    oslo.sql("app", "ALTER SYSTEM SET archive_mode = off");
    oslo.restart();
    await_readiness(&trio.paris, "oslo f: \"paris\" archives its WAL, \"oslo\" would not");
    oslo.sql("app", "ALTER SYSTEM RESET archive_mode");
    oslo.restart();
    await_readiness(&trio.paris, "oslo t: ");

    oslo.sql("app", "ALTER SYSTEM SET recovery_min_apply_delay = '5min'");
    oslo.reload();
    await_readiness(
        &trio.paris,
        "oslo f: \"oslo\" replays everything 5 min late (recovery_min_apply_delay)",
    );
    oslo.sql("app", "ALTER SYSTEM RESET recovery_min_apply_delay");
    oslo.reload();
    await_readiness(&trio.paris, "oslo t: ");

    oslo.sql("app", "ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'");
    oslo.reload();
    let wrong = "oslo f: not done yet on \"oslo\": alter setting (makes \"oslo\" follow \"paris\"); \
        not done yet on \"oslo\": reload (puts the settings in force); \
        \"oslo\" does not stream from \"paris\"";
    await_readiness(&trio.paris, wrong);
    apply(&trio.paris);
    await_readiness(&trio.paris, "oslo t: ");
}

/// An existing subscription is altered in place when a standby joins.
#[test]
fn a_subscription_gets_a_failover_slot_when_a_standby_joins() {
    if Server::major() < 17 {
        return;
    }
    let trio = standby();
    trio.paris.sql(
        "app",
        "SELECT nodes.remove_link('oslo');
         CREATE TABLE public.parts (id integer PRIMARY KEY);
         SELECT nodes.add_subscription('feed', publisher => 'paris', subscriber => 'london',
             tables => '{public.parts}')",
    );
    trio.london.sql("app", "CREATE TABLE public.parts (id integer PRIMARY KEY)");
    trio.apply();
    let state = "SELECT format('%s %s %s', oid, subfailover, subenabled) FROM pg_subscription";
    let before = trio.london.query_one_text("app", state);
    assert!(before.ends_with(" f t"), "{before}");
    trio.paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    trio.apply();
    assert_eq!(trio.london.query_one_text("app", state), before.replace(" f t", " t t"));
    let failover = "SELECT failover::text FROM pg_replication_slots WHERE slot_type = 'logical'";
    assert_eq!(trio.paris.query_one_text("app", failover), "true");
    assert_eq!(trio.plan(), [""; 0], "nothing is left to do");
}
