//! `nodes.test_node()`: connects now and says, factor by factor, what works.

use super::desired::Desired;
use super::reach;
use crate::libpq::connection::Connection;
use crate::libpq::reactor;
use crate::libpq::trace::Trace;
use crate::observe;
use crate::observe::session::{Session, Target};
use nodes_plan::desired::Interest;
use nodes_plan::observed::NodeFacts;
use std::time::Instant;

/// Every factor, first cause first: where one fails, those that need it are not tested.
const FACTORS: [&str; 13] = [
    "dns",
    "tcp",
    "tls",
    "authentication",
    "session",
    "version",
    "rights",
    "role",
    "replication",
    "wal_level",
    "replication slots",
    "walsenders",
    "postgres_fdw",
];

/// One factor.
pub struct Finding {
    pub factor: &'static str,
    /// `None`: not tested.
    pub ok: Option<bool>,
    pub detail: String,
    pub hint: Option<String>,
}

impl Finding {
    pub fn good(factor: &'static str, detail: impl Into<String>) -> Self {
        Finding { factor, ok: Some(true), detail: detail.into(), hint: None }
    }

    pub fn bad(factor: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Finding { factor, ok: Some(false), detail: detail.into(), hint: Some(hint.into()) }
    }

    /// Good or bad, with a hint for the bad case.
    fn judge(factor: &'static str, ok: bool, detail: String, hint: &'static str) -> Self {
        if ok { Self::good(factor, detail) } else { Self::bad(factor, detail, hint) }
    }

    fn not_tested(factor: &'static str) -> Self {
        Finding { factor, ok: None, detail: "not tested".to_owned(), hint: None }
    }
}

/// Tests one node.
pub fn test(desired: &Desired, target: &Target, interest: &Interest) -> Vec<Finding> {
    // Of every node it is told whether it could have foreign schemas.
    let interest = Interest { foreign: true, ..interest.clone() };
    let mut findings = reactor::block_on(findings(target, &interest));
    for factor in FACTORS {
        if !findings.iter().any(|finding| finding.factor == factor) {
            findings.push(Finding::not_tested(factor));
        }
    }
    let place = |finding: &Finding| FACTORS.iter().position(|factor| *factor == finding.factor);
    findings.sort_by_key(place);
    for finding in &mut findings {
        finding.detail = desired.redact(&finding.detail);
    }
    findings
}

async fn findings(target: &Target, interest: &Interest) -> Vec<Finding> {
    let (started, mut trace) = (Instant::now(), Trace::default());
    let opened = Session::open_traced(target, &mut trace).await;
    let mut findings = reach::findings(&trace);
    let mut session = match opened {
        Ok(session) => session,
        Err(error) => {
            if let Some(refused) = reach::refused(&trace, &error) {
                findings.retain(|finding| finding.factor != refused.factor);
                findings.push(refused);
            }
            return findings;
        }
    };
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    findings.push(Finding::good("session", format!("open after {ms:.1} ms")));
    findings.push(version(session.connection.server_version()));
    match observe::facts(&mut session, interest).await {
        Ok(facts) => {
            findings.extend(rights(&facts));
            findings.push(replication(target, &facts).await);
            findings.extend(settings(&facts));
        }
        Err(error) => findings.push(Finding::bad(
            "rights",
            error.to_string(),
            "The role must be able to read the system catalogs.",
        )),
    }
    findings
}

fn version(number: i32) -> Finding {
    let major = number / 10_000;
    Finding::judge(
        "version",
        (15..=18).contains(&major),
        format!("PostgreSQL {major}.{}", number % 10_000),
        "Versions 15 to 18 are known to work.",
    )
}

fn rights(facts: &NodeFacts) -> Vec<Finding> {
    let rights = match (facts.superuser, facts.can_create_subscription) {
        (true, _) => "superuser",
        (false, true) => "may create subscriptions",
        (false, false) => "neither superuser nor pg_create_subscription",
    };
    vec![
        Finding::good("role", format!("{} in database {}", facts.role, facts.database)),
        Finding::judge(
            "rights",
            facts.superuser || facts.can_create_subscription,
            rights.to_owned(),
            "Enough for a publisher or a foreign server; subscribers and standbys need more.",
        ),
    ]
}

/// A connection as a walreceiver makes it.
async fn replication(target: &Target, facts: &NodeFacts) -> Finding {
    let conninfo = target.conninfo.clone().with("replication", "true");
    let params: Vec<(&str, &str)> = conninfo.iter().collect();
    let hint = "A standby's primary and a publisher need a role with REPLICATION, a line \
                \"replication\" in pg_hba.conf and a free walsender.";
    match Connection::connect(&params, target.connect_timeout).await {
        Err(error) => Finding::bad("replication", error.message, hint),
        Ok(mut connection) => match connection.simple_rows("IDENTIFY_SYSTEM").await {
            Err(error) => Finding::bad("replication", error.message, hint),
            Ok(rows) => Finding::judge(
                "replication",
                rows.value(0, 0) == Some(facts.system_identifier.as_str()),
                format!("system identifier {}", rows.value(0, 0).unwrap_or("unknown")),
                "Replication connections reach another server than ordinary ones.",
            ),
        },
    }
}

fn settings(facts: &NodeFacts) -> Vec<Finding> {
    let setting = |name| facts.setting(name).unwrap_or("unknown").to_owned();
    let used = |used: i64, name| format!("{used} of {}", setting(name));
    vec![
        Finding::judge(
            "wal_level",
            facts.setting("wal_level") == Some("logical"),
            setting("wal_level"),
            "A publisher needs wal_level = logical, and a restart.",
        ),
        Finding::good("replication slots", used(facts.slots.len() as i64, "max_replication_slots")),
        Finding::good("walsenders", used(facts.walsenders, "max_wal_senders")),
        Finding::judge(
            "postgres_fdw",
            facts.fdw_available,
            if facts.fdw_available { "available" } else { "not installed" }.to_owned(),
            "Foreign schemas on this node need it: install PostgreSQL's contrib package.",
        ),
    ]
}
