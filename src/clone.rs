//! What a server does with files and programs of its machine. Knows no libpq and no registry.
//!
//! A clone is made by the server that runs where it is to be: `pg_basebackup` into a directory
//! beside the final one, configuration, one rename, start. A server that is to be a standby
//! restarts itself, see [`demote`], on its own data or on a copy that it has made, see [`swap`].
//!
//! The directory beside bears the link's mark in its name, as slots do: so a later call knows
//! whose it is. Where the final directory is there, it is complete.

mod configure;
mod copy;
pub mod demote;
mod place;
mod server;
pub mod swap;
mod task;

pub use task::{Action, Task};

use crate::error::Result;

/// Does one part of the work and says in a word how it is.
pub fn run(action: Action, task: &Task) -> Result<&'static str> {
    match action {
        Action::Check => place::check(task),
        Action::Copy => copy::copy(task),
        Action::Clear => copy::clear(task),
        Action::Start => server::start(task),
        Action::Finish => configure::finish(task).map(|()| "finished"),
    }
}
