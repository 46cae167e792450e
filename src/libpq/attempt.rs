//! What a connection string means: every single address to try, in order, so that each gets
//! its own limit and no name is looked up inside libpq.

use super::error::{Cause, Error};
use super::handle::Handle;
use super::trace::Lookup;
use super::{reactor, resolve};
use std::net::IpAddr;
use std::time::Duration;

/// One try to connect: the parameters for a single address.
pub type Attempt = Vec<(String, String)>;

/// Nothing can listen here: the way to it ends in a file.
pub const NOWHERE: &str = "/dev/null";

pub struct Attempts {
    pub list: Vec<Attempt>,
    /// Names of hosts; those that lead nowhere cannot even be tried.
    pub lookups: Vec<Lookup>,
    /// For each attempt.
    pub limit: Duration,
}

/// An attempt in libpq's words.
pub fn describe(attempt: &Attempt) -> String {
    let get = |wanted: &str| {
        attempt.iter().find(|(key, _)| key == wanted).map_or("", |(_, value)| value.as_str())
    };
    match (get("hostaddr"), get("host")) {
        ("", "") => format!("server on the default socket, port {}", get("port")),
        ("", host) => format!("server on \"{host}\", port {}", get("port")),
        (address, "") => format!("server at {address}, port {}", get("port")),
        (address, host) => format!("server at \"{host}\" ({address}), port {}", get("port")),
    }
}

/// Whether libpq would refuse the parameters wherever they lead. It looks at all of them before it
/// tries an address, and says which one it tried.
pub fn is_unusable(attempt: &Attempt) -> bool {
    let mut elsewhere = attempt.clone();
    elsewhere.retain(|(key, _)| key != "host" && key != "hostaddr");
    elsewhere.push(("host".to_owned(), NOWHERE.to_owned()));
    Handle::start(&elsewhere).is_ok_and(|handle| !handle.failure().message.contains(NOWHERE))
}

/// Takes a conninfo of several hosts and addresses apart. The limit is `connect_timeout`, where
/// the parameters say so.
pub async fn all(params: &[(&str, &str)], limit: Duration) -> Result<Attempts, Error> {
    let mut base: Attempt =
        params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    base.push(("fallback_application_name".to_owned(), "pg_nodes".to_owned()));
    base.push(("client_encoding".to_owned(), "UTF8".to_owned()));
    let wanted = effective(&base)?;
    let get = |key: &str| wanted.iter().find(|(known, _)| known == key).map(|(_, v)| v.as_str());
    let own = get("connect_timeout").and_then(|seconds| seconds.parse().ok());
    let limit = own.filter(|seconds| *seconds > 0).map_or(limit, Duration::from_secs);
    let mut lookups = Vec::new();
    let mut places = Vec::new();
    for place in places_of(get("host"), get("hostaddr"), get("port")) {
        if !place.hostaddr.is_empty() || is_local(&place.host) {
            places.push(place);
            continue;
        }
        if place.host.parse::<IpAddr>().is_ok() {
            places.push(Place { hostaddr: place.host.clone(), ..place });
            continue;
        }
        let addresses = look_up(&place.host, limit).await;
        let found = addresses.iter().flatten();
        places.extend(found.map(|address| Place { hostaddr: address.clone(), ..place.clone() }));
        lookups.push(Lookup { name: place.host, addresses });
    }
    Ok(Attempts { list: passes(&base, &places, get("target_session_attrs")), lookups, limit })
}

async fn look_up(host: &str, limit: Duration) -> Result<Vec<String>, Error> {
    let late = |_| {
        let ms = limit.as_millis();
        Error::of(Cause::Name, format!("host name \"{host}\" did not resolve within {ms} ms"))
    };
    reactor::timeout(limit, resolve::addresses(host)).await.map_err(late)?
}

/// The parameters together with what the environment and a service file add, as libpq reads
/// them. It is asked to connect with one value that it refuses before it looks at any network;
/// any other refusal is an error of the parameters.
fn effective(base: &Attempt) -> Result<Attempt, Error> {
    const REFUSED: &str = "channel_binding";
    let mut refused = base.clone();
    refused.retain(|(key, _)| key != REFUSED);
    refused.push((REFUSED.to_owned(), "none of its values".to_owned()));
    let refusal = Handle::start(&refused)?;
    match refusal.failure() {
        expected if expected.message.contains(REFUSED) => Ok(refusal.options()),
        error => Err(error),
    }
}

/// `prefer-standby` means two rounds; every other choice libpq makes on a single address too.
fn passes(base: &Attempt, places: &[Place], wanted: Option<&str>) -> Vec<Attempt> {
    let rounds = match wanted {
        Some("prefer-standby") => vec![Some("standby"), Some("any")],
        Some(_) | None => vec![None],
    };
    let attempt = |place: &Place, attrs: Option<&str>| {
        let mut attempt = base.clone();
        let mut set = |key: &str, value: &str| {
            attempt.retain(|(known, _)| known != key);
            if !value.is_empty() {
                attempt.push((key.to_owned(), value.to_owned()));
            }
        };
        set("host", &place.host);
        set("hostaddr", &place.hostaddr);
        set("port", &place.port);
        if let Some(attrs) = attrs {
            set("target_session_attrs", attrs);
        }
        attempt
    };
    rounds
        .into_iter()
        .flat_map(|attrs| places.iter().map(move |place| (place, attrs)))
        .map(|(place, attrs)| attempt(place, attrs))
        .collect()
}

#[derive(Clone)]
struct Place {
    host: String,
    hostaddr: String,
    port: String,
}

/// Lists of hosts, addresses and ports belong together by position; one port serves all.
fn places_of(host: Option<&str>, hostaddr: Option<&str>, port: Option<&str>) -> Vec<Place> {
    let split = |list: Option<&str>| -> Vec<String> {
        list.map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (hosts, addresses, ports) = (split(host), split(hostaddr), split(port));
    let at = |list: &[String], i: usize| list.get(i).cloned().unwrap_or_default();
    (0..hosts.len().max(addresses.len()).max(1))
        .map(|i| Place {
            host: at(&hosts, i),
            hostaddr: at(&addresses, i),
            port: if ports.len() == 1 { at(&ports, 0) } else { at(&ports, i) },
        })
        .collect()
}

/// A directory of Unix sockets, an abstract socket, or libpq's default.
fn is_local(host: &str) -> bool {
    host.is_empty() || host.starts_with('/') || host.starts_with('@')
}
