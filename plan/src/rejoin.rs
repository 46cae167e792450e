//! An old primary returns: how far it and the new one are apart, in words, and what forbids to
//! rewind it, or to have it copied anew.

use crate::conninfo::Conninfo;
use crate::desired::NodeId;
use crate::failover::Reason;
use crate::lsn::Lsn;
use crate::name::MAX_NAME_BYTES;
use crate::pulse::Pulse;
use crate::rule::RuleId;
use crate::standby::{replication_conninfo, shell_quote};
use crate::units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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

/// Why there is nobody to return to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPrimary {
    /// No other primary of the group answers.
    Silent,
    /// The server itself is one, and the other has not taken its place.
    NotNewer,
}

/// Whom a server follows when it returns: of those with the same data that are no standbys the one
/// on the highest timeline.
pub fn primary_for<'a>(
    own: &Pulse,
    others: impl Iterator<Item = (NodeId, &'a Pulse)>,
) -> Result<NodeId, NoPrimary> {
    let primaries = others.filter(|(_, pulse)| {
        !pulse.in_recovery && pulse.system_identifier == own.system_identifier
    });
    let (id, primary) =
        primaries.max_by_key(|(_, pulse)| pulse.timeline).ok_or(NoPrimary::Silent)?;
    let is_newer = own.in_recovery || primary.timeline > own.timeline;
    if is_newer { Ok(id) } else { Err(NoPrimary::NotNewer) }
}

/// What the link to a server is called that had none: as the server, or nearly so.
pub fn free_name(server: &str, taken: &BTreeSet<&str>) -> String {
    let (mut name, mut number) = (server.to_owned(), 1_u32);
    while taken.contains(name.as_str()) {
        number += 1;
        let suffix = format!("_{number}");
        let room = MAX_NAME_BYTES - suffix.len();
        let fits = |end: &usize| server.is_char_boundary(*end);
        let end = (0..=room.min(server.len())).rev().find(fits).unwrap_or_default();
        name = format!("{}{suffix}", &server[..end]);
    }
    name
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
pub struct Returning {
    pub superuser: bool,
    /// Whether its WAL names every page that was changed: `wal_log_hints`, or checksums.
    pub knows_changes: bool,
    pub full_page_writes: bool,
    /// Why it cannot rewind itself, where it cannot.
    pub no_rewind: Option<String>,
    /// Why it cannot be given a copy in place of its data, where it cannot.
    pub no_copy: Option<String>,
    /// Whether the new primary has tablespaces.
    pub tablespaces: bool,
    /// For whoever does by hand what the server cannot; unknown where the role is no superuser.
    pub data_directory: Option<String>,
    /// The directory of its programs.
    pub programs: Option<String>,
    /// How the new primary is reached.
    #[serde(skip)]
    pub primary: Conninfo,
}

impl Returning {
    fn rewind_by_hand(&self) -> String {
        let primary = self.primary.clone().without("password");
        let options = format!("--target-pgdata={} --source-server=", self.directory());
        self.by_hand("run", "pg_rewind", &options, &primary)
    }

    fn copy_by_hand(&self) -> String {
        let primary = replication_conninfo(self.primary.clone().without("password"));
        let options = format!(
            "--wal-method=stream --checkpoint=fast --pgdata={} --dbname=",
            self.directory()
        );
        self.by_hand("empty that, run", "pg_basebackup", &options, &primary)
    }

    fn directory(&self) -> String {
        self.data_directory.as_deref().map_or("DIRECTORY".to_owned(), shell_quote)
    }

    fn by_hand(&self, how: &str, program: &str, options: &str, primary: &Conninfo) -> String {
        let program = match &self.programs {
            Some(programs) => shell_quote(&format!("{programs}/{program}")),
            None => program.to_owned(),
        };
        let primary = shell_quote(&primary.to_string());
        format!(
            "Stop it, save the configuration files in its data directory, {how}, as its operating \
             system user, {program} --write-recovery-conf {options}{primary}, put them back, start \
             it, and make the same call again."
        )
    }
}

/// How it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What it alone has written is taken back.
    Rewind,
    /// It is copied from the new primary.
    Copy,
}

pub(crate) struct Rule {
    pub id: RuleId,
    pub when: &'static str,
    forbids: &'static [Way],
    then: fn(&Returning) -> Option<Finding>,
}

/// Message, after the server's name, and hint.
type Finding = (String, String);

/// All are asked.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        id: "RJ01",
        when: "the role on the server is not a superuser",
        forbids: &[Way::Rewind, Way::Copy],
        then: no_superuser,
    },
    Rule {
        id: "RJ02",
        when: "its WAL does not name every changed page",
        forbids: &[Way::Rewind],
        then: no_hints,
    },
    Rule {
        id: "RJ03",
        when: "full_page_writes is off",
        forbids: &[Way::Rewind],
        then: no_full_pages,
    },
    Rule {
        id: "RJ04",
        when: "the server cannot rewind itself",
        forbids: &[Way::Rewind],
        then: no_rewind,
    },
    Rule {
        id: "RJ05",
        when: "the server cannot be given a copy in place of its data",
        forbids: &[Way::Copy],
        then: no_copy,
    },
    Rule {
        id: "RJ06",
        when: "the new primary has tablespaces",
        forbids: &[Way::Copy],
        then: tablespaces,
    },
];

/// Why the server cannot return in this way; none: it can.
pub fn obstacles(name: &str, returning: &Returning, way: Way) -> Vec<Reason> {
    let reason = |rule: &Rule| {
        let (message, hint) = (rule.then)(returning)?;
        let message = format!("\"{name}\": {message}");
        Some(Reason { rule: rule.id, message, hint })
    };
    RULES.iter().filter(|rule| rule.forbids.contains(&way)).filter_map(reason).collect()
}

fn no_superuser(on: &Returning) -> Option<Finding> {
    const HINT: &str = "Give the node an admin_conninfo of a superuser with nodes.alter_node().";
    (!on.superuser).then(|| ("the role is not a superuser".to_owned(), HINT.to_owned()))
}

fn no_hints(on: &Returning) -> Option<Finding> {
    const HINT: &str = "pg_rewind needs one of them from before the two parted; turn \
                        wal_log_hints on for the next time.";
    let message = "wal_log_hints and data checksums are both off";
    (!on.knows_changes).then(|| (message.to_owned(), HINT.to_owned()))
}

fn no_full_pages(on: &Returning) -> Option<Finding> {
    const HINT: &str = "pg_rewind needs it; turn it on for the next time.";
    (!on.full_page_writes).then(|| ("full_page_writes is off".to_owned(), HINT.to_owned()))
}

fn no_rewind(on: &Returning) -> Option<Finding> {
    on.no_rewind.clone().map(|why| (why, on.rewind_by_hand()))
}

fn no_copy(on: &Returning) -> Option<Finding> {
    on.no_copy.clone().map(|why| (why, on.copy_by_hand()))
}

fn tablespaces(on: &Returning) -> Option<Finding> {
    on.tablespaces.then(|| ("the new primary has tablespaces".to_owned(), on.copy_by_hand()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tx\n";

    fn primary(timeline: i64) -> Pulse {
        Pulse { timeline, system_identifier: "7".into(), ..Pulse::default() }
    }

    #[test]
    fn whoever_took_its_place_is_followed() {
        let standby = Pulse { in_recovery: true, ..primary(9) };
        let foreign = Pulse { system_identifier: "8".into(), ..primary(9) };
        let (second, third) = (primary(2), primary(3));
        let others = [(1, &standby), (2, &foreign), (3, &second), (4, &third)];
        let found =
            |own: &Pulse, others: &[(NodeId, &Pulse)]| primary_for(own, others.iter().copied());
        assert_eq!(found(&primary(2), &others), Ok(4));
        assert_eq!(found(&primary(3), &others), Err(NoPrimary::NotNewer));
        assert_eq!(found(&primary(2), &others[..2]), Err(NoPrimary::Silent));
        // A standby that has gone too far returns, too.
        assert_eq!(found(&standby, &others), Ok(4));
    }

    #[test]
    fn a_name_that_is_taken_is_numbered() {
        let name =
            |server: &str, taken: &[&str]| free_name(server, &taken.iter().copied().collect());
        assert_eq!(name("paris", &["oslo"]), "paris");
        assert_eq!(name("paris", &["paris", "paris_2"]), "paris_3");
        let long = "\u{fc}".repeat(31);
        let short = format!("{}_2", "\u{fc}".repeat(30));
        assert_eq!(name(&long, &[&long]), short);
        assert_eq!(name(&long, &[&long, &short]), format!("{}_3", "\u{fc}".repeat(30)));
    }

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
        let able = Returning {
            superuser: true,
            knows_changes: true,
            full_page_writes: true,
            ..Returning::default()
        };
        let why = || Some("there is no such program".to_owned());
        let ways = [Way::Rewind, Way::Copy];
        let cases = [
            (Returning { superuser: false, ..able.clone() }, "RJ01", &ways[..]),
            (Returning { knows_changes: false, ..able.clone() }, "RJ02", &ways[..1]),
            (Returning { full_page_writes: false, ..able.clone() }, "RJ03", &ways[..1]),
            (Returning { no_rewind: why(), ..able.clone() }, "RJ04", &ways[..1]),
            (Returning { no_copy: why(), ..able.clone() }, "RJ05", &ways[1..]),
            (Returning { tablespaces: true, ..able.clone() }, "RJ06", &ways[1..]),
        ];
        assert_eq!(cases.len(), RULES.len());
        for way in ways {
            assert_eq!(obstacles("paris", &able, way), []);
            for (returning, rule, forbidden) in &cases {
                let found = obstacles("paris", returning, way);
                let wanted = if forbidden.contains(&way) { &[*rule][..] } else { &[] };
                assert_eq!(found.iter().map(|reason| reason.rule).collect::<Vec<_>>(), wanted);
                let text =
                    |r: &Reason| r.message.starts_with("\"paris\": ") && r.hint.ends_with('.');
                assert!(found.iter().all(text));
            }
        }
    }
}
