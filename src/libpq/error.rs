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

    /// An open connection is of no more use.
    pub fn lost(message: impl Into<String>) -> Self {
        Error { sqlstate: Some("08006".to_owned()), ..Error::plain(message) }
    }

    /// libpq's text about a connection. Where the peer has spoken, the text holds the SQLSTATE
    /// after the severity and the place in the peer's source code as the last line: verbosity
    /// is the only way to learn the SQLSTATE of a refused connection.
    pub fn from_verbose(text: &str) -> Self {
        let mut sqlstate = None;
        let lines = text.lines().filter(|line| !is_source_location(line)).map(|line| {
            let Some((before, code, after)) = split_at_sqlstate(line) else {
                return line.to_owned();
            };
            sqlstate = Some(code.to_owned());
            format!("{before}: {after}")
        });
        let message = one_line(&lines.collect::<Vec<_>>().join("\n"));
        Error { sqlstate, ..Error::plain(message) }
    }

    /// One error of many attempts; a peer's answer says more than its silence.
    pub fn joined(errors: Vec<Error>) -> Self {
        let sqlstate = errors.iter().find_map(|error| error.sqlstate.clone());
        let mut messages: Vec<String> = errors.into_iter().map(|error| error.message).collect();
        messages.dedup();
        Error { sqlstate, ..Error::plain(messages.join("; ")) }
    }
}

/// `…FATAL:  28P01: password authentication failed` in three parts.
fn split_at_sqlstate(line: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = line.split_once(":  ")?;
    let (code, after) = rest.split_once(": ")?;
    let is_code = |b: u8| b.is_ascii_digit() || b.is_ascii_uppercase();
    (code.len() == 5 && code.bytes().all(is_code)).then_some((before, code, after))
}

/// `LOCATION:  auth_failed, auth.c:333`, the first word in any language.
fn is_source_location(line: &str) -> bool {
    let Some((_, place)) = line.split_once(":  ") else { return false };
    let Some((file, number)) = place.rsplit_once(':') else { return false };
    let file = file.rsplit(", ").next().unwrap_or_default();
    number.bytes().all(|b| b.is_ascii_digit()) && file.contains('.') && !file.contains(' ')
}

/// libpq's messages span lines; ours do not.
pub fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
