//! What a clone is made with, so that it follows its primary from its first start on: the very
//! settings that the rules of a standby link would give it.

use crate::conninfo::{Conninfo, Secret};
use crate::desired::{Link, Registry, Spec};
use crate::index::Index;
use crate::observed::{NodeFacts, World};
use crate::others::Others;
use crate::rule::Context;
use crate::standby;
use crate::units;
use std::time::Duration;

/// How a clone comes to be and goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The link's mark: name of its slot, and `application_name` of whoever reads it.
    pub mark: String,
    /// Whether there is to be a slot.
    pub slot: bool,
    /// How the copy is fetched, without a password.
    pub conninfo: Conninfo,
    /// The line of the password file, where the primary asks for a password.
    pub passfile: Option<Secret>,
    pub settings: Vec<(&'static str, String)>,
}

/// The `application_name` of who copies for a link: not that of its standby, for whom commits may
/// wait.
pub fn copier(mark: &str) -> String {
    format!("{mark}_copy")
}

/// `None` where the link is no standby link between registered nodes.
pub fn recipe(registry: &Registry, link: &Link, major: i32) -> Option<Recipe> {
    let Spec::Standby(spec) = &link.spec else { return None };
    let world = World::default();
    let others = Others::of(registry, &world);
    let index = Index::new(registry, &world);
    let ctx = Context::new(registry, &index, &others, link)?;
    let target = NodeFacts { version: major * 10_000, ..NodeFacts::default() };
    let mut settings = vec![("primary_conninfo", standby::wanted_conninfo(&ctx, &target).render())];
    let simple = standby::wanted_settings(&ctx, &target).into_iter();
    settings.extend(simple.filter_map(|(name, value)| Some((name, value?))));
    let own = ctx.from.conninfo.clone().without("password");
    Some(Recipe {
        mark: ctx.slot().to_owned(),
        slot: spec.slot,
        conninfo: standby::replication_conninfo(own),
        passfile: standby::wanted_passfile(&ctx),
        settings,
    })
}

/// How others reach a server that is made with the data of one node on the machine of another:
/// as the one, but at the other's address. `None` where that is not one plain address.
pub fn conninfo_at(data: &Conninfo, place: &Conninfo, port: u16) -> Option<Conninfo> {
    let several = |key| place.get(key).is_some_and(|value: &str| value.contains(','));
    if data.get("service").is_some()
        || place.get("service").is_some()
        || several("host")
        || several("hostaddr")
    {
        return None;
    }
    let rest = data.clone().without("host").without("hostaddr").without("port");
    let address = ["host", "hostaddr"].into_iter();
    let address = address.filter_map(|key| Some((key.to_owned(), place.get(key)?.to_owned())));
    let port = std::iter::once(("port".to_owned(), port.to_string()));
    let rest = rest.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    Some(Conninfo::new(address.chain(port).chain(rest)))
}

/// `12 % (1.2 GB of 10 GB), 3 min left`: how far a copy is.
pub fn progress(done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let Some(total) = total.filter(|total| *total > 0) else {
        return units::bytes(done);
    };
    // The total is an estimate: more may come.
    let percent = (done as f64 / total as f64 * 100.0).min(100.0);
    let text =
        format!("{percent:.0} % ({} of {})", units::bytes(done), units::bytes(total.max(done)));
    match time_left(done, total, elapsed) {
        Some(left) => format!("{text}, {} left", units::time(left)),
        None => text,
    }
}

/// At the rate so far, when that can be told: the total is an estimate.
pub fn time_left(done: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = total.checked_sub(done).filter(|left| *left > 0)?;
    if rate < 1.0 || elapsed.as_secs() < 1 {
        return None;
    }
    let left = left as f64 / rate;
    Some(Duration::from_secs_f64(left.min(3e9)))
}
