//! What happened on the way to a connection: which names were looked up, which addresses were
//! tried, and how far each try came.

use super::error::Error;
use super::handle::Handle;
use pq_sys::ConnStatusType as Status;

/// What a try to connect is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Reading the parameters: libpq, as it was built, cannot even try.
    Parameters,
    /// Reaching the address.
    Network,
    /// Agreeing on TLS, or on doing without.
    Tls,
    /// Being let in by the server.
    Authentication,
    /// Being given a session in the database, of the kind that is wanted.
    Session,
    Open,
}

impl Stage {
    /// What the connection is busy with now. `None`: it is broken, or between two stages.
    pub(super) fn of(handle: &Handle) -> Option<Stage> {
        match handle.status() {
            Status::CONNECTION_STARTED => Some(Stage::Network),
            Status::CONNECTION_SSL_STARTUP | Status::CONNECTION_GSS_STARTUP => Some(Stage::Tls),
            Status::CONNECTION_AWAITING_RESPONSE | Status::CONNECTION_AUTHENTICATING => {
                Some(Stage::Authentication)
            }
            Status::CONNECTION_AUTH_OK
            | Status::CONNECTION_SETENV
            | Status::CONNECTION_CHECK_WRITABLE
            | Status::CONNECTION_CONSUME
            | Status::CONNECTION_CHECK_TARGET
            | Status::CONNECTION_CHECK_STANDBY => Some(Stage::Session),
            Status::CONNECTION_OK => Some(Stage::Open),
            Status::CONNECTION_BAD
            | Status::CONNECTION_MADE
            | Status::CONNECTION_NEEDED
            | Status::CONNECTION_ALLOCATED => None,
        }
    }
}

/// What a server refuses after it has checked who we are (`InitPostgres`, postinit.c): no such
/// database, no right to connect to it, none that takes connections.
const NO_SESSION: &[&str] = &["3D000", "42501", "55000"];

/// A host name that was looked up.
pub struct Lookup {
    pub name: String,
    pub addresses: Result<Vec<String>, Error>,
}

/// One try to connect to one address.
pub struct Try {
    /// In libpq's words.
    pub place: String,
    /// What it was busy with last.
    pub stage: Stage,
    /// Protocol and cipher, where TLS was agreed on.
    pub tls: Option<String>,
    /// Whether the server asked for the password and got it.
    pub used_password: bool,
    pub error: Option<Error>,
}

impl Try {
    pub(super) fn begin(place: String) -> Try {
        Try { place, stage: Stage::Network, tls: None, used_password: false, error: None }
    }

    /// Takes note of an error. The server may have let us in and refused a session at once.
    pub(super) fn fail(&mut self, handle: &Handle, error: &Error) {
        let refused = error.sqlstate.as_deref().is_some_and(|code| NO_SESSION.contains(&code));
        if self.stage == Stage::Authentication && (refused || handle.has_settings()) {
            self.stage = Stage::Session;
        }
    }

    /// Takes note of where the connection is now.
    pub(super) fn look(&mut self, handle: &Handle) {
        if let Some(stage) = Stage::of(handle) {
            self.stage = stage;
            if stage > Stage::Tls {
                self.tls = handle.tls();
                self.used_password = handle.used_password();
            }
        }
    }
}

#[derive(Default)]
pub struct Trace {
    pub lookups: Vec<Lookup>,
    /// In their order; only the last one may have led to a connection.
    pub tries: Vec<Try>,
}

impl Trace {
    /// The try that came furthest, the first one of several.
    pub fn furthest(&self) -> Option<&Try> {
        let further = |best: &'_ Try, next: &Try| next.stage > best.stage;
        self.tries.iter().reduce(|best, next| if further(best, next) { next } else { best })
    }
}
