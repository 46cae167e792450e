//! The first factors of `nodes.test_node()`: how far the way to a node leads.

use super::check::Finding;
use crate::error::Error;
use crate::libpq::error::{Cause, Error as PeerError};
use crate::libpq::trace::{Lookup, Stage, Trace, Try};

/// From the name of the host to being let in, as far as it went; of several addresses the one
/// that led furthest.
pub fn findings(trace: &Trace) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !trace.lookups.is_empty() || !trace.tries.is_empty() {
        findings.push(names(&trace.lookups));
    }
    let Some(tried) = trace.furthest() else { return findings };
    for (stage, factor) in [
        (Stage::Parameters, "conninfo"),
        (Stage::Network, "tcp"),
        (Stage::Tls, "tls"),
        (Stage::Authentication, "authentication"),
        (Stage::Session, "session"),
    ] {
        match &tried.error {
            Some(error) if tried.stage <= stage => {
                findings.push(Finding::bad(factor, error.with_detail(), hint(stage, error)));
                break;
            }
            Some(_) | None if (Stage::Network..Stage::Session).contains(&stage) => {
                findings.push(Finding::good(factor, passed(trace, tried, stage)));
            }
            Some(_) | None => {}
        }
    }
    findings
}

/// What stopped us other than the way: before anything was tried, or when we were let in.
pub fn refused(trace: &Trace, error: &Error) -> Option<Finding> {
    let factor = match (error, trace.furthest()) {
        (Error::PasswordMissing(_) | Error::PasswordUnused(_), _) => "authentication",
        (_, Some(tried)) if tried.error.is_some() => return None,
        (_, Some(_)) => "session",
        (_, None) if trace.lookups.is_empty() => "conninfo",
        (_, None) => return None,
    };
    let hint = error.hint().unwrap_or_else(|| "Correct it with nodes.alter_node().".to_owned());
    Some(Finding::bad(factor, error.to_string(), hint))
}

fn names(lookups: &[Lookup]) -> Finding {
    let detail = |lookup: &Lookup| match &lookup.addresses {
        Ok(addresses) => format!("{} is {}", lookup.name, addresses.join(", ")),
        Err(error) => error.message.clone(),
    };
    let details: Vec<String> = lookups.iter().map(detail).collect();
    if details.is_empty() {
        Finding::good("dns", "not needed: no host is given by name")
    } else if lookups.iter().all(|lookup| lookup.addresses.is_ok()) {
        Finding::good("dns", details.join("; "))
    } else {
        let hint = "Correct the host with nodes.alter_node(), or have this server's name service \
                    know it.";
        Finding::bad("dns", details.join("; "), hint)
    }
}

fn passed(trace: &Trace, tried: &Try, stage: Stage) -> String {
    match stage {
        Stage::Network => {
            let others = trace.tries.iter().filter(|other| other.place != tried.place);
            let vain: Vec<&str> =
                others.filter_map(|other| Some(other.error.as_ref()?.message.as_str())).collect();
            match vain.is_empty() {
                true => tried.place.clone(),
                false => format!("{}; tried in vain: {}", tried.place, vain.join("; ")),
            }
        }
        Stage::Tls => tried.tls.clone().unwrap_or_else(|| "not used".to_owned()),
        _ if tried.used_password => "with a password".to_owned(),
        _ => "without a password".to_owned(),
    }
}

fn hint(stage: Stage, error: &PeerError) -> &'static str {
    match (stage, error.cause) {
        (_, Cause::Descriptors) => "Raise max_files_per_process of this server.",
        (Stage::Parameters, _) => "Correct it with nodes.alter_node(), or install another libpq.",
        (Stage::Network, Cause::Silent) => {
            "The address is wrong, that machine is down, or a firewall drops what is sent to it."
        }
        (Stage::Network, _) => {
            "See that the server runs, that its listen_addresses and port are these, and that no \
             firewall is in the way; nodes.alter_node() corrects the address."
        }
        (_, Cause::Silent) => {
            "The port is open, but no PostgreSQL answers: that server hangs, or something else \
             listens there."
        }
        (Stage::Tls, _) => {
            "sslmode, sslrootcert and sslcert of the conninfo must fit what that server offers \
             (its setting ssl, its certificate and its name in it)."
        }
        (Stage::Authentication, _) if error.sqlstate.as_deref() == Some("53300") => {
            "All connections of that server are taken: raise max_connections there, or end some."
        }
        (Stage::Authentication, _) if error.sqlstate.as_deref() == Some("57P03") => {
            "That server starts, stops or recovers; its log says how far it is."
        }
        (Stage::Authentication, _) => {
            "pg_hba.conf of that server decides who may connect from here and how; \
             nodes.set_password() and nodes.alter_node() change password and role."
        }
        (Stage::Session | Stage::Open, _) => {
            "The role was let in, but given no session: see the database's name, the role's right \
             to connect to it, and the connections that are left there."
        }
    }
}
