//! Stops `nodes.apply()` at a chosen place. It writes into its step log before and after it
//! sends something: a trigger on that table waits there for a lock that the test holds. No
//! product code knows of it.
use crate::client::Psql;
use crate::server::Server;
use crate::wait::{LONG, wait_until};
use postgres::Client;

const GATE: &str = "
    CREATE SCHEMA gate;
    CREATE SEQUENCE gate.passed;
    CREATE TABLE gate.closed (at bigint NOT NULL);
    CREATE FUNCTION gate.pass() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF current_setting('gate.xact', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('gate.xact', pg_current_xact_id()::text, false);
        IF nextval('gate.passed') = (SELECT at FROM gate.closed) THEN
          PERFORM pg_advisory_xact_lock(4711);
        END IF;
      END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER gate BEFORE INSERT OR UPDATE ON nodes.step_log
      FOR EACH ROW EXECUTE FUNCTION gate.pass();";

const STOPPED: &str = "SELECT pid::text FROM pg_locks
    WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted";

/// Runs a procedure until it stops at the `n`-th transaction that writes the step log, and has
/// `then` do something about it: it gets the process id, and the connection whose end opens the
/// gate for good. `None`: it ended before.
pub fn stop_at(
    registry: &Server,
    n: u32,
    call: &str,
    then: impl FnOnce(u32, Client),
) -> Option<Psql> {
    registry.sql("app", &format!("{GATE} INSERT INTO gate.closed VALUES ({n})"));
    let mut keeper = registry.client("app");
    keeper.batch_execute("SELECT pg_advisory_lock(4711)").expect("the gate is free");
    std::thread::scope(|scope| {
        let called = scope.spawn(|| registry.psql("app", call));
        let mut stopped = None;
        wait_until("it stops at the gate or ends", LONG, || {
            stopped = registry.query_texts("app", STOPPED).pop();
            stopped.is_some() || called.is_finished()
        });
        match &stopped {
            Some(pid) => then(pid.parse().expect("a process id"), keeper),
            None => keeper.batch_execute("DROP SCHEMA gate CASCADE").expect("nobody uses the gate"),
        }
        let said = called.join().expect("psql ran");
        assert!(stopped.is_some() || said.ok, "{call} failed:\n{said}");
        stopped.map(|_| said)
    })
}

/// Removes the gate; whoever waits at it must be gone.
pub fn open_gate(registry: &Server) {
    registry.sql("app", "DROP SCHEMA gate CASCADE");
}
