//! An old primary returns: how far it and the new one are apart, in words, and what forbids to
//! rewind it.

use crate::failover::Reason;
use crate::lsn::Lsn;
use crate::rule::RuleId;
use crate::units;
use serde::{Deserialize, Serialize};

/// Where a primary has left which timelines: its history file (timeline.c).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past(Vec<(i64, Lsn)>);

impl Past {
    /// Reads the lines `timeline <TAB> position <TAB> reason`; others are comments.
    pub fn read(history: &str) -> Past {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, Lsn::parse(words.next()?)?))
        };
        Past(history.lines().filter_map(line).collect())
    }

    /// Where it left a timeline; `None`: it never was on it.
    fn left(&self, timeline: i64) -> Option<Lsn> {
        self.0.iter().find(|(id, _)| *id == timeline).map(|(_, position)| *position)
    }

    /// Which timeline it left last between two positions, and where.
    pub fn left_between(&self, earlier: Lsn, later: Lsn) -> Option<(i64, Lsn)> {
        self.0.iter().rev().find(|(_, left)| earlier < *left && *left < later).copied()
    }
}

/// What the two have not in common.
pub struct Divergence<'a> {
    pub name: &'a str,
    pub primary: &'a str,
    /// Of the one that returns.
    pub timeline: i64,
    /// How far it has written.
    pub end: Option<Lsn>,
    pub past: &'a Past,
}

impl Divergence<'_> {
    /// Whether it has gone past where the other left its timeline: it cannot follow then.
    pub fn is_real(&self) -> bool {
        let left = self.past.left(self.timeline);
        left.is_none_or(|left| self.end.is_some_and(|end| end > left))
    }

    /// In a sentence.
    pub fn explain(&self) -> String {
        let Divergence { name, primary, timeline, .. } = self;
        let Some(left) = self.past.left(*timeline) else {
            return format!(
                "\"{primary}\" never was on timeline {timeline}, which \"{name}\" is on: all that \
                 \"{name}\" has written there is lost"
            );
        };
        let begin = format!("\"{primary}\" left timeline {timeline} at {left}");
        match self.end {
            Some(end) if end > left => format!(
                "{begin}; \"{name}\" has written {} of WAL since then, up to {end}: what is in it \
                 is lost",
                units::bytes(end.since(left))
            ),
            Some(_) | None => format!("{begin}; \"{name}\" has written nothing since then"),
        }
    }
}

/// What the server that returns says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rewinding {
    pub superuser: bool,
    /// Whether its WAL names every page that was changed: `wal_log_hints`, or checksums.
    pub knows_changes: bool,
    pub full_page_writes: bool,
}

pub(crate) struct Rule {
    pub id: RuleId,
    pub when: &'static str,
    then: fn(&Rewinding, Option<&str>) -> Option<Finding>,
}

/// Message, after the server's name, and hint.
type Finding = (String, &'static str);

/// All are asked.
pub(crate) const RULES: &[Rule] = &[
    Rule { id: "RJ01", when: "the role on the server is not a superuser", then: no_superuser },
    Rule { id: "RJ02", when: "its WAL does not name every changed page", then: no_hints },
    Rule { id: "RJ03", when: "full_page_writes is off", then: no_full_pages },
    Rule { id: "RJ04", when: "the server cannot rewind itself", then: not_able },
];

/// Why the server cannot be rewound; none: it can.
pub fn obstacles(name: &str, rewinding: &Rewinding, no_rewind: Option<&str>) -> Vec<Reason> {
    let reason = |rule: &Rule| {
        let (message, hint) = (rule.then)(rewinding, no_rewind)?;
        let message = format!("\"{name}\": {message}");
        Some(Reason { rule: rule.id, message, hint: hint.to_owned() })
    };
    RULES.iter().filter_map(reason).collect()
}

fn no_superuser(on: &Rewinding, _: Option<&str>) -> Option<Finding> {
    const HINT: &str = "Give the node an admin_conninfo of a superuser with nodes.alter_node().";
    (!on.superuser).then(|| ("the role is not a superuser".to_owned(), HINT))
}

fn no_hints(on: &Rewinding, _: Option<&str>) -> Option<Finding> {
    const HINT: &str = "pg_rewind needs one of them from before the two parted; turn \
                        wal_log_hints on for the next time.";
    (!on.knows_changes).then(|| ("wal_log_hints and data checksums are both off".to_owned(), HINT))
}

fn no_full_pages(on: &Rewinding, _: Option<&str>) -> Option<Finding> {
    const HINT: &str = "pg_rewind needs it; turn it on for the next time.";
    (!on.full_page_writes).then(|| ("full_page_writes is off".to_owned(), HINT))
}

fn not_able(_: &Rewinding, no_rewind: Option<&str>) -> Option<Finding> {
    const HINT: &str = "Stop it, run pg_rewind against the new primary, create standby.signal, \
                        start it, and make the same call again.";
    no_rewind.map(|why| (why.to_owned(), HINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tx\n";

    fn explain(timeline: i64, end: Option<u64>) -> String {
        let past = Past::read(HISTORY);
        let end = end.map(Lsn);
        Divergence { name: "paris", primary: "oslo", timeline, end, past: &past }.explain()
    }

    #[test]
    fn it_says_what_is_lost() {
        let left = "\"oslo\" left timeline 1 at 0/3000148; \"paris\" has written";
        assert_eq!(
            explain(1, Some(0x300_0148 + 100)),
            format!("{left} 100 bytes of WAL since then, up to 0/30001AC: what is in it is lost")
        );
        assert_eq!(explain(1, Some(0x300_0148)), format!("{left} nothing since then"));
        assert!(explain(2, None).contains("nothing since then"));
        let past = Past::read(HISTORY);
        let is_real = |timeline, end| {
            let end = Some(Lsn(end));
            Divergence { name: "paris", primary: "oslo", timeline, end, past: &past }.is_real()
        };
        assert!(is_real(1, 0x300_0149) && !is_real(1, 0x300_0148) && is_real(7, 1));
        assert!(explain(7, None).contains("never was on timeline 7"));
    }

    #[test]
    fn every_rule_has_its_case() {
        let able = Rewinding { superuser: true, knows_changes: true, full_page_writes: true };
        assert_eq!(obstacles("paris", &able, None), []);
        let cases = [
            (Rewinding { superuser: false, ..able.clone() }, None, "RJ01"),
            (Rewinding { knows_changes: false, ..able.clone() }, None, "RJ02"),
            (Rewinding { full_page_writes: false, ..able.clone() }, None, "RJ03"),
            (able, Some("there is no pg_rewind"), "RJ04"),
        ];
        assert_eq!(cases.len(), RULES.len());
        for (rewinding, no_rewind, rule) in cases {
            let found = obstacles("paris", &rewinding, no_rewind);
            assert_eq!(found.iter().map(|reason| reason.rule).collect::<Vec<_>>(), [rule]);
            assert!(found[0].message.starts_with("\"paris\": ") && found[0].hint.ends_with('.'));
        }
    }
}
