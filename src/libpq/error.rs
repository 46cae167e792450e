//! What went wrong on a connection, in the peer's or libpq's words.

/// An error of a peer (with its SQLSTATE) or of the way to it (without).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub sqlstate: Option<String>,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Error {
    /// A failure without the peer's own words.
    pub fn plain(message: impl Into<String>) -> Self {
        Error { sqlstate: None, message: message.into(), detail: None, hint: None }
    }
}

/// libpq's messages span lines; ours do not.
pub fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
