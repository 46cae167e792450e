//! Behind triggers on the registry's tables: whoever changes them, the worker looks again.

use crate::pg::hooks;
use pgrx::prelude::*;
use pgrx::spi::SpiError;

#[pg_trigger]
fn wake_worker<'a>(
    _trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, SpiError> {
    hooks::wake_worker_at_commit();
    Ok(None::<PgHeapTuple<'a, AllocatedByPostgres>>)
}
