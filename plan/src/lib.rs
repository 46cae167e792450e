//! The planner of pg_nodes, pure: desired state and observed facts in, ordered steps out.
//! It knows no Postgres process, no libpq, no clock and no I/O.
//!
//! [`desired::Registry`] is what the DBA asked for, [`observed::World`] what the servers said,
//! [`plan`] the difference as [`step::Step`]s and [`step::Problem`]s.
//!
//! Between plans [`node_health`] and [`link_health`] judge what heartbeats bring
//! ([`pulse::Pulse`]), and say which changes people must hear of ([`transition`]).
#![forbid(unsafe_code)]

pub mod clone;
pub mod commits;
pub mod conninfo;
pub mod desired;
pub mod explain;
pub mod failover;
pub mod growth;
pub mod headroom;
pub mod link_health;
pub mod link_watch;
pub mod lsn;
pub mod name;
pub mod node_health;
pub mod observed;
pub mod options;
pub mod promotion;
pub mod pulse;
pub mod quote;
pub mod rejoin;
pub mod render;
pub mod rule;
pub mod siblings;
pub mod standby_names;
pub mod step;
pub mod superseded;
pub mod switchover;
pub mod takeover;
pub mod topology;
pub mod transition;
pub mod units;

mod claims;
mod foreign;
mod group;
mod handed_over;
mod index;
mod order;
mod others;
mod refuse;
mod stale_slots;
mod standby;
mod subscription;
mod synchronized;
mod synchronous;

pub use order::plan;
pub use rule::rules;
pub use synchronous::TOO_FEW_STREAM;
