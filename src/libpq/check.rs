//! Whether libpq could connect with certain parameters, as far as it can be told without
//! connecting: by its own words where it can be asked.

use super::attempt::{Attempt, NOWHERE};
use super::error::Error;
use super::guard;
use super::handle::Handle;

type Pairs<'a> = [(&'a str, &'a str)];

/// Values that are right on some server, though this libpq may be built without what they need.
const VALID: &[(&str, &[&str])] = &[
    ("sslmode", &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    ("sslnegotiation", &["postgres", "direct"]),
    ("sslcertmode", &["disable", "allow", "require"]),
    ("channel_binding", &["disable", "prefer", "require"]),
    ("gssencmode", &["disable", "prefer", "require"]),
];

/// Numbers that libpq reads only when it is too late to refuse them.
const NUMBERS: &[&str] = &[
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
];

/// Finds the first parameter that libpq would refuse. The error is libpq's message, or ours in
/// its words.
pub fn check(pairs: &Pairs<'_>) -> Result<(), Error> {
    guard::check()?;
    numbers(pairs)?;
    // What a service file adds is known only where that file is.
    if !pairs.iter().any(|(key, _)| *key == "service") {
        places(pairs)?;
    }
    values(pairs)
}

fn numbers(pairs: &Pairs<'_>) -> Result<(), Error> {
    let wrong = |(key, value): &&(&str, &str)| {
        NUMBERS.contains(key) && !value.is_empty() && value.trim().parse::<i32>().is_err()
    };
    match pairs.iter().find(wrong) {
        Some((key, value)) => Err(Error::plain(format!(
            "invalid integer value \"{value}\" for connection option \"{key}\""
        ))),
        None => Ok(()),
    }
}

/// Hosts, addresses and ports must be equally many.
fn places(pairs: &Pairs<'_>) -> Result<(), Error> {
    const REFUSED: (&str, &str) = ("channel_binding", "none of its values");
    let is_place = |key: &str| matches!(key, "host" | "hostaddr" | "port");
    refusal(pairs.iter().filter(|(key, _)| is_place(key)).chain([&REFUSED]), REFUSED.0)
}

/// libpq looks at all its parameters before it tries an address.
fn values(pairs: &Pairs<'_>) -> Result<(), Error> {
    let valid = |key: &str, value: &str| {
        VALID.iter().any(|(known, values)| *known == key && values.contains(&value))
    };
    let left_out = ["host", "hostaddr", "port", "service", "passfile", "password"];
    let asked = pairs.iter().filter(|(key, v)| !left_out.contains(key) && !valid(key, v));
    // With a password libpq reads no password file.
    refusal(asked.chain([&("host", NOWHERE), &("password", "x")]), NOWHERE)
}

/// Asks libpq, which must refuse: for the reason given it has found nothing else.
fn refusal<'a>(
    pairs: impl Iterator<Item = &'a (&'a str, &'a str)>,
    reason: &str,
) -> Result<(), Error> {
    let owned = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let attempt: Attempt = owned.collect();
    match Handle::start(&attempt)?.failure() {
        expected if expected.message.contains(reason) => Ok(()),
        error => Err(error),
    }
}
