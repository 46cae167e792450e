//! libpq, safe and never blocking: connections as futures, driven by one reactor that waits as
//! Postgres waits. Knows neither nodes nor links.

mod attempt;
pub mod check;
pub mod connection;
pub mod conninfo;
pub mod error;
mod guard;
mod handle;
pub mod reactor;
mod resolve;
pub mod trace;
