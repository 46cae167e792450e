//! Connection strings as key/value pairs. Parsing is libpq's (the extension does it); merging,
//! comparing, rendering and redacting are here.

use crate::quote::MASK;
use serde::{Deserialize, Serialize};
use std::fmt;

/// libpq's options whose values must never be seen.
const SECRET_KEYS: &[&str] =
    &["password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"];

/// Whether a libpq option holds a secret.
pub fn is_secret_key(key: &str) -> bool {
    SECRET_KEYS.contains(&key)
}

/// A text that prints as [`MASK`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The secret itself, for the bytes that go to a server.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// What people look for first in a conninfo; the rest follows as it came.
const FIRST_KEYS: &[&str] = &["host", "hostaddr", "port", "dbname", "user"];

/// Options of a connection, each key once, address first.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conninfo(Vec<(String, String)>);

impl Conninfo {
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut conninfo = Conninfo::default();
        for (key, value) in pairs {
            conninfo.set(&key, value);
        }
        let rank = |key: &str| FIRST_KEYS.iter().position(|first| *first == key);
        conninfo.0.sort_by_key(|(key, _)| rank(key).unwrap_or(FIRST_KEYS.len()));
        conninfo
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Sets an option, in its old place where it had one.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value.into(),
            None => self.0.push((key.to_owned(), value.into())),
        }
    }

    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.set(key, value);
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.0.retain(|(k, _)| k != key);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    pub fn password(&self) -> Option<Secret> {
        self.get("password").map(Secret::new)
    }

    /// The conninfo string as libpq reads it, secrets included.
    pub fn render(&self) -> String {
        self.join(|_, value| value.to_owned())
    }

    fn join(&self, show: impl Fn(&str, &str) -> String) -> String {
        let pairs: Vec<String> =
            self.0.iter().map(|(k, v)| format!("{k}={}", quote_value(&show(k, v)))).collect();
        pairs.join(" ")
    }
}

/// Prints without secrets.
impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = |k: &str, v: &str| {
            if is_secret_key(k) { MASK.to_owned() } else { v.to_owned() }
        };
        f.write_str(&self.join(mask))
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Two conninfos are equal when they say the same, in whatever order.
impl PartialEq for Conninfo {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|(k, v)| other.get(k) == Some(v))
    }
}

impl Eq for Conninfo {}

/// Quotes a value by the rules of libpq's `conninfo_parse` (fe-connect.c).
fn quote_value(value: &str) -> String {
    let plain =
        !value.is_empty() && !value.chars().any(|c| c.is_whitespace() || c == '\'' || c == '\\');
    if plain {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// One line of a password file that fits every host, port, database and user
/// (libpq, "The Password File"): `:` and `\` of the password are escaped.
pub fn passfile_line(password: &Secret) -> Secret {
    let escaped = password.reveal().replace('\\', "\\\\").replace(':', "\\:");
    Secret::new(format!("*:*:*:*:{escaped}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conninfo(pairs: &[(&str, &str)]) -> Conninfo {
        Conninfo::new(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }

    #[test]
    fn renders_what_libpq_reads() {
        let c = conninfo(&[
            ("host", "10.0.0.1"),
            ("dbname", "my app"),
            ("user", ""),
            ("password", r"a'b\c"),
        ]);
        assert_eq!(c.render(), r"host=10.0.0.1 dbname='my app' user='' password='a\'b\\c'");
        assert_eq!(c.to_string(), r"host=10.0.0.1 dbname='my app' user='' password=********");
    }

    #[test]
    fn equality_ignores_order() {
        let a = conninfo(&[("host", "a"), ("port", "1")]);
        let b = conninfo(&[("port", "1"), ("host", "a")]);
        assert_eq!(a, b);
        assert_ne!(a, b.clone().with("port", "2"));
        assert_ne!(a, b.without("port"));
    }

    #[test]
    fn passfile_escapes_its_separators() {
        assert_eq!(passfile_line(&Secret::new(r"p:w\d")).reveal(), r"*:*:*:*:p\:w\\d");
    }
}
