//! `nodes.test_node()`: connects now and says, factor by factor, what works.

use super::desired::Desired;
use crate::libpq::connection::Connection;
use crate::libpq::reactor;
use crate::observe;
use crate::observe::session::{Session, Target};
use nodes_plan::desired::Interest;
use nodes_plan::observed::NodeFacts;
use std::time::{Duration, Instant};

/// One factor.
pub struct Finding {
    pub factor: &'static str,
    pub ok: bool,
    pub detail: String,
    pub hint: Option<&'static str>,
}

impl Finding {
    fn good(factor: &'static str, detail: impl Into<String>) -> Self {
        Finding { factor, ok: true, detail: detail.into(), hint: None }
    }

    fn bad(factor: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Finding { factor, ok: false, detail: detail.into(), hint: Some(hint) }
    }

    /// Good or bad, with a hint for the bad case.
    fn judge(factor: &'static str, ok: bool, detail: String, hint: &'static str) -> Self {
        if ok { Self::good(factor, detail) } else { Self::bad(factor, detail, hint) }
    }
}

/// Tests one node, first cause first: what a failure makes moot is left out.
pub fn test(desired: &Desired, target: &Target, interest: &Interest) -> Vec<Finding> {
    let mut findings = reactor::block_on(findings(target, interest));
    for finding in &mut findings {
        finding.detail = desired.redact(&finding.detail);
    }
    findings
}

async fn findings(target: &Target, interest: &Interest) -> Vec<Finding> {
    let started = Instant::now();
    let mut session = match Session::open(target).await {
        Ok(session) => session,
        Err(error) => {
            let hint = "The message tells whether it is the name, the address, TLS or the \
                        password; pg_hba.conf of that server decides who may connect.";
            return vec![Finding::bad("connection", error.to_string(), hint)];
        }
    };
    let mut findings = connection(&session.connection, started.elapsed());
    match observe::facts(&mut session, interest).await {
        Ok(facts) => {
            findings.extend(rights(&facts));
            findings.push(replication(target, &facts).await);
            findings.extend(settings(&facts));
        }
        Err(error) => findings.push(Finding::bad(
            "observation",
            error.to_string(),
            "The role must be able to read the system catalogs.",
        )),
    }
    findings
}

fn connection(connection: &Connection, took: Duration) -> Vec<Finding> {
    let ms = took.as_secs_f64() * 1000.0;
    let tls = if connection.ssl_in_use() { "on" } else { "off" };
    let password = if connection.used_password() { "with" } else { "without" };
    vec![
        Finding::good("connection", format!("open after {ms:.1} ms")),
        Finding::good("tls", tls),
        Finding::good("authentication", format!("{password} a password")),
    ]
}

fn rights(facts: &NodeFacts) -> Vec<Finding> {
    let number = facts.version;
    let rights = match (facts.superuser, facts.can_create_subscription) {
        (true, _) => "superuser",
        (false, true) => "may create subscriptions",
        (false, false) => "neither superuser nor pg_create_subscription",
    };
    vec![
        Finding::judge(
            "version",
            (15..=18).contains(&facts.major()),
            format!("PostgreSQL {}.{}", facts.major(), number % 10_000),
            "Versions 15 to 18 are known to work.",
        ),
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
