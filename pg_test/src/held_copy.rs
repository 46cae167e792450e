//! Initial copies that stop at their first row until they may go on.
use crate::{LONG, Server, wait_until};
use postgres::Client;

const WAITING: &str = "SELECT 1 FROM pg_locks
    WHERE locktype = 'advisory' AND objid = 4712 AND NOT granted";

/// Holds them for as long as it is there.
pub struct HeldCopies {
    _holder: Client,
}

impl Server {
    /// From now on copies into this table can be held.
    pub fn make_copies_holdable(&self, db: &str, table: &str) {
        self.sql(
            db,
            &format!(
                "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
                   BEGIN PERFORM pg_advisory_xact_lock_shared(4712); RETURN NEW; END $$;
                 CREATE TRIGGER wait BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION wait();
                 ALTER TABLE {table} ENABLE ALWAYS TRIGGER wait"
            ),
        );
    }

    pub fn hold_copies(&self, db: &str) -> HeldCopies {
        let mut holder = self.client(db);
        holder.batch_execute("SELECT pg_advisory_lock(4712)").expect("the lock is free");
        HeldCopies { _holder: holder }
    }

    /// Whether a copy is held right now.
    pub fn has_held_copy(&self, db: &str) -> bool {
        !self.query_texts(db, WAITING).is_empty()
    }

    #[track_caller]
    pub fn await_held_copy(&self, db: &str) {
        wait_until("the copy waits", LONG, || self.has_held_copy(db));
    }
}
