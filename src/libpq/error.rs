//! What went wrong on a connection, in the peer's or libpq's words.

/// What kept us from a peer that did not speak itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A host name leads nowhere.
    Name,
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Silent,
    /// One side does not take the other's certificate.
    Certificate,
    /// Postgres allows this process no more descriptors.
    Descriptors,
    /// Anything else: a connection that broke, TLS, nonsense.
    Other,
}

/// An error of a peer (with its SQLSTATE) or of the way to it (without).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub cause: Cause,
    pub sqlstate: Option<String>,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Error {
    /// A failure without the peer's own words.
    pub fn plain(message: impl Into<String>) -> Self {
        let (sqlstate, detail, hint) = (None, None, None);
        Error { cause: Cause::Other, sqlstate, message: message.into(), detail, hint }
    }

    /// The message together with what the peer added to it.
    pub fn with_detail(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.message),
            None => self.message.clone(),
        }
    }

    /// A failure whose cause is known.
    pub fn of(cause: Cause, message: impl Into<String>) -> Self {
        Error { cause, ..Error::plain(message) }
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
        let refused = [libc::ECONNREFUSED, libc::ENOENT].map(words_of);
        let cause = if sqlstate.is_some() {
            Cause::Other
        } else if refused.iter().any(|words| message.contains(words)) {
            Cause::Refused
        } else if message.contains("certificate") {
            Cause::Certificate
        } else {
            Cause::Other
        };
        Error { sqlstate, ..Error::of(cause, message) }
    }

    /// One error of many attempts; a peer's answer says more than its silence.
    pub fn joined(errors: Vec<Error>) -> Self {
        let sqlstate = errors.iter().find_map(|error| error.sqlstate.clone());
        let first = errors.first().map_or(Cause::Other, |error| error.cause);
        let mixed = errors.iter().any(|error| error.cause != first);
        let silent = errors.iter().any(|error| error.cause == Cause::Silent);
        let cause = match (mixed, silent) {
            (false, _) => first,
            (true, true) => Cause::Silent,
            (true, false) => Cause::Other,
        };
        let mut messages: Vec<String> = errors.into_iter().map(|error| error.message).collect();
        messages.dedup();
        Error { sqlstate, ..Error::of(cause, messages.join("; ")) }
    }
}

/// The operating system's words for an error, in the language in which libpq says them too.
fn words_of(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
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
