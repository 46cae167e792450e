//! The one room with `unsafe` against Postgres: small safe wrappers, named for what they do.

pub mod fd;
pub mod lock;
pub mod spi;
pub mod user;
pub mod wait;
