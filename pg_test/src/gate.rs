//! Stops `nodes.apply()` at a chosen place. It writes into its step log before and after it
//! sends something: a trigger on that table waits there for a lock that the test holds. No
//! product code knows of it.
use crate::client::Psql;
use crate::names::literal;
use crate::server::Server;
use crate::wait::{LONG, wait_until};
use postgres::Client;
use std::thread::JoinHandle;

const GATE: &str = "
    CREATE SCHEMA gate;
    CREATE SEQUENCE gate.passed;
    CREATE TABLE gate.closed (at bigint NOT NULL, node text);
    CREATE FUNCTION gate.pass() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF (SELECT c.node IS NOT NULL AND c.node IS DISTINCT FROM NEW.node FROM gate.closed c) THEN
        RETURN NEW;
      END IF;
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
    stop(registry, &n.to_string(), call)
}

/// The same, where only transactions about one node count. The first one comes before anything
/// is sent to that node, the last one after its last answer.
pub fn stop_at_node(registry: &Server, node: &str, n: u32, call: &str) -> Option<Stopped> {
    stop(registry, &format!("{n}, {}", literal(node)), call)
}

/// Runs a procedure to its end; returns how many transactions wrote the step log of one node.
pub fn count_stops(registry: &Server, node: &str, call: &str) -> u32 {
    close_gate(registry, &format!("0, {}", literal(node)));
    let said = registry.psql("app", call);
    assert!(said.ok, "{call} failed:\n{said}");
    let passed = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END::text FROM gate.passed";
    let count = registry.query_one_text("app", passed);
    open_gate(registry);
    count.parse().expect("a number")
}

fn close_gate(registry: &Server, closed: &str) {
    registry.sql("app", &format!("{GATE} INSERT INTO gate.closed VALUES ({closed})"));
}

fn stop(registry: &Server, closed: &str, call: &str) -> Option<Stopped> {
    close_gate(registry, closed);
    hold(registry, registry, call)
}

/// The same for a call by which `successor`, a standby of `primary` at first, gets the registry. It
/// is made on a third server.
pub fn stop_at_successor(
    primary: &Server,
    successor: &Server,
    caller: &Server,
    n: u32,
    call: &str,
) -> Option<Stopped> {
    close_gate(primary, &n.to_string());
    let closed = "SELECT to_regclass('gate.closed')::text";
    wait_until("the gate is there", LONG, || !successor.query_one_text("app", closed).is_empty());
    hold(successor, caller, call)
}

fn hold(registry: &Server, caller: &Server, call: &str) -> Option<Stopped> {
    let mut keeper = registry.client("app");
    keeper.batch_execute("SELECT pg_advisory_lock(4711)").expect("the gate is free");
    let background = caller.psql_in_background("app", call);
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
