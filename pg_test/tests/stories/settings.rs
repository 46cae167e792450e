//! Servers that are set up as few are: whatever their defaults for sessions, ours are the same.

use pg_test::adopted::Adopted;
use pg_test::names::literal;
use pg_test::trio::{Trio, apply, plan};
use pg_test::watcher::watching;
use pg_test::{Builder, LONG, Server, wait_until};

/// How names, literals, numbers and times are written and read, and how transactions see each
/// other: a hot standby lets nobody read in serializable mode.
const UNUSUAL: [(&str, &str); 13] = [
    ("array_nulls", "off"),
    ("backslash_quote", "off"),
    ("bytea_output", "escape"),
    ("check_function_bodies", "off"),
    ("datestyle", "SQL, DMY"),
    ("default_transaction_isolation", "serializable"),
    ("extra_float_digits", "-10"),
    ("intervalstyle", "sql_standard"),
    ("plan_cache_mode", "force_custom_plan"),
    ("quote_all_identifiers", "on"),
    ("row_security", "off"),
    ("standard_conforming_strings", "off"),
    ("transform_null_equals", "on"),
];

fn unusual(name: &str) -> Builder {
    let builder = watching(name).conf("timezone", "Asia/Kolkata");
    UNUSUAL.iter().fold(builder, |builder, (setting, value)| builder.conf(setting, value))
}

/// All follow, and nothing is left to do.
#[track_caller]
fn assert_right(primary: &Server, standbys: [&str; 2]) {
    // The worker has slots made for siblings.
    wait_until("nothing is left to do", LONG, || plan(primary).is_empty());
    let ready = "SELECT standby || coalesce(': ' || array_to_string(reasons, '; '), '')
        FROM nodes.failover_ready ORDER BY standby";
    let expected = standbys.map(|name| format!("{name}: "));
    let mut found = vec![];
    wait_until("both could take over", LONG, || {
        found = primary.query_texts("app", ready);
        found == expected
    });
    for (link, state) in [("orders_feed", "streaming"), ("stock", "up")] {
        primary.await_link(link, state);
    }
}

#[test]
fn defaults_of_sessions_change_nothing() {
    let trio = Trio::start_with(unusual("paris"), unusual("london"), unusual("oslo"));
    trio.register();
    trio.link();
    trio.apply();
    let rome = Adopted::place("rome");
    let (data, port) = (literal(&rome.data_dir().to_string_lossy()), rome.port());
    let call = format!("CALL nodes.clone_standby('rome', 'paris', {data}, port => {port})");
    let said = trio.paris.psql("app", &call);
    assert!(said.ok, "{said}");
    apply(&trio.paris);
    assert_right(&trio.paris, ["oslo", "rome"]);
    // The worker of a standby watches as well, and each knows which node it is.
    for (server, role) in [(&trio.paris, "primary"), (&trio.oslo, "standby")] {
        let own = "SELECT role FROM nodes.status WHERE is_self";
        wait_until("it knows itself", LONG, || server.query_texts("app", own) == [role]);
        server.await_health("paris", "up");
        server.await_health("london", "up");
    }
    let said = trio.oslo.psql("app", "CALL nodes.switchover('oslo')");
    assert!(said.ok && said.output.contains("\"oslo\" is the primary"), "{said}");
    assert_right(&trio.oslo, ["paris", "rome"]);
}
