//! The planner of pg_nodes, pure: desired state and observed facts in, ordered steps out.
//! It knows no Postgres process, no libpq, no clock and no I/O.
#![forbid(unsafe_code)]
