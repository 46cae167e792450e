//! Stops `nodes.apply()` at a chosen place. It writes into its step log before and after it
//! sends something: a trigger on that table waits there for a lock that the test holds. No
//! product code knows of it.
use crate::client::Psql;
use crate::server::Server;
use crate::wait::{LONG, wait_until};
use postgres::Client;
use std::thread::JoinHandle;

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

/// A call that waits at the gate, and whoever keeps the gate closed.
pub struct Stopped {
    /// The process that waits.
    pub pid: u32,
    keeper: Client,
    call: JoinHandle<Psql>,
}

/// Runs a procedure until it stops at the `n`-th transaction that writes the step log. `None`:
/// it ended before, and the gate is gone.
pub fn stop_at(registry: &Server, n: u32, call: &str) -> Option<Stopped> {
    registry.sql("app", &format!("{GATE} INSERT INTO gate.closed VALUES ({n})"));
    let mut keeper = registry.client("app");
    keeper.batch_execute("SELECT pg_advisory_lock(4711)").expect("the gate is free");
    let background = registry.psql_in_background("app", call);
    let mut stopped = None;
    wait_until("it stops at the gate or ends", LONG, || {
        stopped = registry.query_texts("app", STOPPED).pop();
        stopped.is_some() || background.is_finished()
    });
    if let Some(pid) = stopped {
        return Some(Stopped { pid: pid.parse().expect("a process id"), keeper, call: background });
    }
    let said = background.join().expect("psql ran");
    assert!(said.ok, "{call} failed:\n{said}");
    open_gate(registry);
    None
}

impl Stopped {
    /// Opens the gate and returns what the call says in the end.
    pub fn go_on(self) -> Psql {
        drop(self.keeper);
        self.call.join().expect("psql ran")
    }

    /// Waits until the call and the keeper's connection have ended by themselves.
    pub fn end(mut self) -> Psql {
        wait_until("all connections are cut", LONG, || self.keeper.simple_query("").is_err());
        self.call.join().expect("psql ran")
    }
}

/// Removes the gate; whoever waited at it must be gone.
pub fn open_gate(registry: &Server) {
    registry.sql("app", "DROP SCHEMA gate CASCADE");
}
