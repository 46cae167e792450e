//! Options that people give for a subscription, brought into the one form in which the server
//! reports them, so that wanted and observed can be compared.

use crate::desired::{PUBLICATION_OPTIONS, SUBSCRIPTION_OPTIONS};

/// Every option that `nodes.add_subscription()` knows.
pub fn known_subscription_options() -> Vec<&'static str> {
    PUBLICATION_OPTIONS.iter().chain(SUBSCRIPTION_OPTIONS).copied().collect()
}

/// Normalizes one option's value; the error says what would be valid.
pub fn normalize(option: &str, value: &str) -> Result<String, String> {
    match option {
        "publish" => normalize_publish(value),
        "streaming" => match value {
            "parallel" => Ok("parallel".to_owned()),
            other => boolean(other).map(|on| if on { "on" } else { "off" }.to_owned()),
        },
        "origin" => one_of(value, &["any", "none"]),
        "synchronous_commit" => {
            one_of(value, &["off", "local", "remote_write", "remote_apply", "on"])
        }
        _ => boolean(value).map(|on| on.to_string()),
    }
}

/// As Postgres reads a boolean option (`defGetBoolean`, define.c).
fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(format!("\"{value}\" is neither true nor false.")),
    }
}

fn one_of(value: &str, allowed: &[&str]) -> Result<String, String> {
    match allowed.iter().find(|known| **known == value) {
        Some(known) => Ok((*known).to_owned()),
        None => Err(format!("\"{value}\" is not one of {}.", allowed.join(", "))),
    }
}

/// The kinds of change in the order in which a publication reports them.
fn normalize_publish(value: &str) -> Result<String, String> {
    const KINDS: [&str; 4] = ["insert", "update", "delete", "truncate"];
    let wanted: Vec<&str> = value.split(',').map(str::trim).collect();
    if let Some(unknown) = wanted.iter().find(|kind| !KINDS.contains(kind)) {
        return Err(format!("\"{unknown}\" is not one of {}.", KINDS.join(", ")));
    }
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| wanted.contains(kind)).collect();
    Ok(kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_form_that_servers_report() {
        let good = [
            ("publish", "delete,insert", "insert, delete"),
            ("binary", "ON", "true"),
            ("streaming", "true", "on"),
            ("streaming", "parallel", "parallel"),
            ("origin", "none", "none"),
        ];
        for (option, value, normal) in good {
            assert_eq!(normalize(option, value).as_deref(), Ok(normal));
        }
        for (option, value) in [("publish", "insert,x"), ("binary", "maybe"), ("origin", "me")] {
            assert!(normalize(option, value).is_err());
        }
    }
}
