//! pg_nodes: turns separate Postgres servers into a cluster from inside Postgres.
//!
//! Data flows one way: `sql -> catalog -> nodes_plan <- observe <- libpq`, then
//! `nodes_plan -> apply -> libpq`.
#![deny(unsafe_op_in_unsafe_fn)]

#[expect(
    clippy::result_large_err,
    reason = "pgrx keeps SQLSTATE, detail and hint of an ErrorReport alone, and takes it by value"
)]
mod api;
mod apply;
mod catalog;
mod clone;
mod error;
mod gate;
mod guc;
mod libpq;
mod observe;
mod pg;
mod record;
mod shmem;
mod worker;

use pgrx::prelude::*;

::pgrx::pg_module_magic!();

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!(
    "../sql/failover.sql",
    name = "failover",
    requires = [
        clone_standby,
        clone_step,
        demote_step,
        move_links,
        observe_failover,
        promote_node,
        rejoin_node,
        switchover
    ]
);
extension_sql_file!("../sql/surface.sql", name = "surface", finalize);

#[allow(non_snake_case, reason = "the name that Postgres looks for")]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::init();
    if guc::is_preloading() {
        pg::shmem::request(guc::shared_memory_limits());
        pg::hooks::install();
        pg::writes::install();
        pg::process::register_launcher();
    }
}
