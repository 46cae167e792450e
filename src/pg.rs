//! The one room with `unsafe` against Postgres: small safe wrappers, named for what they do.

pub mod child;
pub mod databases;
pub mod disk;
pub mod extension;
pub mod fd;
pub mod hooks;
pub mod latch;
pub mod lock;
pub mod membership;
pub mod port;
pub mod process;
pub mod shmem;
pub mod spi;
pub mod undo;
pub mod units;
pub mod user;
pub mod wait;
pub mod writes;
pub mod xact;
