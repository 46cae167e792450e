//! What a conninfo may be: parsed by libpq, its password cut out, its options allowed for the
//! caller.

use crate::error::{Error, Result, sentence};
use crate::libpq;
use crate::pg::user;
use nodes_plan::conninfo::{Conninfo, is_secret_key};

/// Options that a role without superuser may use: those that name an address, a database, a
/// role or a time. All that name a file on the server, or a program's own behaviour, are left
/// out, as `postgres_fdw` and dblink do.
const ALLOWED_FOR_ALL: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "connect_timeout",
    "application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslmode",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "sslsni",
    "channel_binding",
    "target_session_attrs",
    "load_balance_hosts",
    "require_auth",
    "gssencmode",
];

/// A conninfo taken apart: safe to store and to show, and the password.
pub struct Checked {
    pub conninfo: String,
    pub password: Option<String>,
}

/// Reads a conninfo of node `node` as libpq does, keyword/value or URI.
pub fn check(node: &str, text: &str) -> Result<Checked> {
    let bad =
        |why: String, hint: &'static str| Error::BadConninfo { node: node.to_owned(), why, hint };
    let hint = "Write it as libpq reads it: 'host=… port=… dbname=… user=…' or a URI.";
    let pairs = libpq::conninfo::parse(text).map_err(|why| bad(sentence(&why), hint))?;
    let conninfo = Conninfo::new(pairs);
    if conninfo.is_empty() {
        return Err(bad("It names no option at all.".into(), hint));
    }
    libpq::conninfo::check_ports(&conninfo.iter().collect::<Vec<_>>())
        .map_err(|why| bad(sentence(&why), "A port is a number from 1 to 65535."))?;
    libpq::check::check(&conninfo.iter().collect::<Vec<_>>())
        .map_err(|error| bad(sentence(&error.message), "Correct it, or leave it out."))?;
    if conninfo.get("replication").is_some() {
        let why = "The option \"replication\" is set by pg_nodes itself where it is needed.";
        return Err(bad(why.into(), "Leave it out."));
    }
    if let Some((key, _)) =
        conninfo.iter().find(|(key, _)| is_secret_key(key) && *key != "password")
    {
        let why = format!("The option \"{key}\" is a secret, and only passwords are kept safe.");
        return Err(bad(why, "Put it into a service file and name that with service=…"));
    }
    if !user::is_superuser() {
        check_allowed(&conninfo)?;
    }
    let password = conninfo.get("password").map(str::to_owned);
    Ok(Checked { conninfo: conninfo.without("password").render(), password })
}

fn check_allowed(conninfo: &Conninfo) -> Result<()> {
    match conninfo.iter().find(|(key, _)| !ALLOWED_FOR_ALL.contains(key)) {
        Some((key, _)) => Err(Error::ForbiddenOption { option: key.to_owned() }),
        None => Ok(()),
    }
}

/// Reads a conninfo that was checked when it was stored.
pub fn stored(node: &str, text: &str, password: Option<&str>) -> Result<Conninfo> {
    let pairs = libpq::conninfo::parse(text).map_err(|why| Error::BadConninfo {
        node: node.to_owned(),
        why: sentence(&why),
        hint: "Correct it with nodes.alter_node().",
    })?;
    let conninfo = Conninfo::new(pairs);
    Ok(match password {
        Some(password) => conninfo.with("password", password),
        None => conninfo,
    })
}

/// Whether libpq knows an option of this name.
pub fn is_keyword(option: &str) -> bool {
    libpq::conninfo::keywords().iter().any(|keyword| keyword == option)
}
