//! pg_nodes: turns separate Postgres servers into a cluster from inside Postgres.
//!
//! Data flows one way: `sql -> catalog -> nodes_plan <- observe <- libpq`, then
//! `nodes_plan -> apply -> libpq`.
#![deny(unsafe_op_in_unsafe_fn)]

::pgrx::pg_module_magic!();
