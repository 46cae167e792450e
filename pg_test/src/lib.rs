//! Harness for tests with real servers: each file owns one thing.
//!
//! Start with [`Server::builder`]. `make test` says through `PG_NODES_PG_CONFIG` which Postgres
//! is under test; servers live in short temporary directories and die with the test that
//! started them. Run as root, everything Postgres runs as another user (see [`user`]).
pub mod activity;
pub mod adopted;
mod builder;
pub mod caller;
mod client;
mod control;
pub mod gate;
pub mod held_copy;
mod home;
mod install;
mod leftover;
pub mod lies;
pub mod names;
pub mod patroni;
mod pooler;
mod process;
mod proxy;
pub mod quartet;
mod residue;
mod server;
mod standby;
mod template;
pub mod tls;
pub mod trio;
pub mod usage;
pub mod user;
mod wait;
pub mod watcher;
pub mod writer;

pub use builder::Builder;
pub use client::Psql;
pub use home::temp_dir;
pub use install::Install;
pub use leftover::remove_leftover;
pub use pooler::{Pooler, Pooling};
pub use process::is_gone;
pub use proxy::{Fault, Phase, Proxy};
pub use server::{Server, is_port_free};
pub use wait::{LONG, wait_until};
