//! One link with all that is known of it, and for every rule the facts for which it decides.

use nodes_plan::clone::copier;
use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::link_health::*;
use nodes_plan::lsn::Lsn;
use nodes_plan::node_health::NodeState;
use nodes_plan::pulse::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const SLOT: &str = "nodes_3f2504e0_1";
pub const MEGABYTE: u64 = 1 << 20;

/// A link from "london" to "paris" with all that is known of it.
#[derive(Debug, Clone)]
pub struct Case {
    pub registry: Registry,
    pub from: (NodeState, Option<Pulse>, Option<&'static str>),
    pub to: (NodeState, Option<Pulse>, Option<&'static str>),
    pub plan: LinkPlan,
    pub limits: LinkLimits,
    pub probe: Option<Probe>,
    pub unread: Option<Unread>,
}

impl Case {
    pub fn new(spec: Spec, source: Pulse, target: Pulse) -> Case {
        let id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301".to_owned();
        let mut registry = Registry { id, ..Registry::default() };
        for (id, name) in [(1, "london"), (2, "paris")] {
            let conninfo = Conninfo::default();
            let (removing, gone, digest) = (false, false, String::new());
            let node = Node { id, name: name.into(), conninfo, digest, removing, gone };
            registry.nodes.insert(id, node);
        }
        let (name, state, keep_data) = ("feed".to_owned(), LinkState::Active, true);
        registry.links.push(Link { id: 1, name, from: 1, to: 2, state, spec, keep_data });
        Case {
            registry,
            from: (NodeState::Up, Some(source), None),
            to: (NodeState::Up, Some(target), None),
            plan: LinkPlan::default(),
            limits: LinkLimits::default(),
            probe: None,
            unread: None,
        }
    }

    /// Streams, 1 MB behind, and keeps 2 MB.
    pub fn subscription() -> Case {
        let spec = SubscriptionSpec {
            tables: None,
            copy_data: true,
            replace: false,
            options: BTreeMap::default(),
        };
        let slot = SlotPulse {
            kind: "logical".into(),
            confirmed_flush_lsn: Some(Lsn(9 * MEGABYTE)),
            ..slot()
        };
        let found = SubscriptionPulse {
            name: "feed".into(),
            enabled: true,
            running: true,
            tables: 3,
            ready: 3,
            ..SubscriptionPulse::default()
        };
        let target = Pulse { subscriptions: vec![found], ..Pulse::default() };
        Case::new(Spec::Subscription(spec), source(slot), target)
    }

    pub fn standby() -> Case {
        let target = Pulse {
            in_recovery: true,
            lsn: Some(Lsn(8 * MEGABYTE)),
            replay_age: Some(7.0),
            receiver: Some(Receiver { status: Some("streaming".into()), ..Receiver::default() }),
            ..Pulse::default()
        };
        Case::new(Spec::Standby(StandbySpec::new(true)), source(slot()), target)
    }

    pub fn standby_without_slot() -> Case {
        let mut case = Case::standby();
        case.registry.links[0].spec = Spec::Standby(StandbySpec::new(false));
        case.source(|source| source.slots.clear())
    }

    pub fn foreign() -> Case {
        let spec = ForeignSpec {
            local_schema: "stock".into(),
            remote_schema: "inventory".into(),
            tables: None,
            roles: BTreeSet::new(),
            public: false,
            writable: true,
            options: BTreeMap::new(),
        };
        Case::new(Spec::Foreign(spec), Pulse::default(), Pulse::default())
    }

    pub fn link(mut self, state: LinkState) -> Case {
        self.registry.links[0].state = state;
        self
    }

    pub fn source<T>(mut self, change: impl FnOnce(&mut Pulse) -> T) -> Case {
        self.from.1.as_mut().map(change);
        self
    }

    pub fn target<T>(mut self, change: impl FnOnce(&mut Pulse) -> T) -> Case {
        self.to.1.as_mut().map(change);
        self
    }

    pub fn slot<T>(self, change: impl FnOnce(&mut SlotPulse) -> T) -> Case {
        self.source(|source| source.slots.first_mut().map(change))
    }

    pub fn found<T>(self, change: impl FnOnce(&mut SubscriptionPulse) -> T) -> Case {
        self.target(|target| target.subscriptions.first_mut().map(change))
    }

    pub fn unread(self) -> Case {
        let case = self.slot(|slot| (slot.active, slot.active_pid) = (false, None));
        case.found(|found| found.running = false).target(|target| target.receiver = None)
    }

    pub fn for_so_long(self, seconds: u64, was_read: bool) -> Case {
        let unread = Some(Unread { length: Duration::from_secs(seconds), was_read });
        Case { unread, ..self }
    }

    pub fn plan(self, plan: LinkPlan) -> Case {
        Case { plan, ..self }
    }

    pub fn limits(self, limits: LinkLimits) -> Case {
        Case { limits, ..self }
    }

    pub fn health(&self) -> LinkHealth {
        let (from, to) = (&self.from, &self.to);
        link_health(&LinkEvidence {
            registry: &self.registry,
            link: &self.registry.links[0],
            from: Side { state: from.0, pulse: from.1.as_ref(), why: from.2 },
            to: Side { state: to.0, pulse: to.1.as_ref(), why: to.2 },
            plan: &self.plan,
            limits: &self.limits,
            probe: self.probe.as_ref(),
            unread: self.unread,
        })
    }
}

pub fn slot() -> SlotPulse {
    SlotPulse {
        name: SLOT.into(),
        kind: "physical".into(),
        active: true,
        active_pid: Some(77),
        restart_lsn: Some(Lsn(8 * MEGABYTE)),
        wal_status: Some("reserved".into()),
        ..SlotPulse::default()
    }
}

pub fn source(slot: SlotPulse) -> Pulse {
    let sender = Sender {
        pid: 77,
        replay_lsn: Some(Lsn(9 * MEGABYTE)),
        replay_lag: Some(3.0),
        ..Sender::default()
    };
    let (slots, senders, lsn) = (vec![slot], vec![sender], Some(Lsn(10 * MEGABYTE)));
    Pulse { slots, senders, lsn, ..Pulse::default() }
}

/// A standby that does not run yet, in this phase of a copy, so many megabytes of so many.
pub fn cloned(phase: &str, streamed: i64, total: Option<i64>) -> Case {
    let bytes = |number| number * MEGABYTE as i64;
    let backup = Backup {
        name: copier(SLOT),
        phase: phase.into(),
        streamed: Some(bytes(streamed)),
        total: total.map(bytes),
        elapsed: 10.0,
    };
    let mut case = Case::standby().source(|s| s.backups = vec![backup]);
    case.to = (NodeState::Down, None, Some("Connection refused"));
    case
}

pub fn copied(case: Case) -> Case {
    let backup = Backup { name: copier(SLOT), ..Backup::default() };
    case.source(|source| source.backups.push(backup))
}

pub fn unfinished(mut case: Case) -> Case {
    if let Spec::Standby(spec) = &mut case.registry.links[0].spec {
        let (directory, tablespaces) = ("/srv/paris".to_owned(), vec![]);
        spec.unfinished = Some(Unfinished { on_node: 2, directory, tablespaces, swap: true });
    }
    case
}

pub fn told(rule: &str) -> Option<Told> {
    Some(Told { message: "it cannot".into(), hint: "Do it.".into(), rule: rule.into() })
}

pub fn step(creates: bool) -> LinkPlan {
    let (reason, rule) = ("it must".into(), "SU20".into());
    LinkPlan { step: Some(PlannedStep { creates, reason, rule }), ..LinkPlan::default() }
}

pub fn probe(error: Option<&str>) -> Option<Probe> {
    Some(Probe { took: Duration::from_millis(3), error: error.map(str::to_owned) })
}

pub fn bytes_limit() -> LinkLimits {
    LinkLimits { max_lag_bytes: Some(MEGABYTE - 1), ..LinkLimits::default() }
}

pub fn time_limit() -> LinkLimits {
    LinkLimits { max_lag: Some(Duration::from_secs(2)), ..LinkLimits::default() }
}

pub fn retained_limit() -> LinkLimits {
    LinkLimits { max_retained_wal: Some(MEGABYTE), ..LinkLimits::default() }
}

/// A rule's number, facts for which it decides, the state, and part of what it says.
pub type Row = (&'static str, Case, LinkStatus, &'static str);

pub fn cases() -> Vec<Row> {
    use LinkStatus::*;
    let refused = LinkPlan { refused: told("SU11"), ..LinkPlan::default() };
    let waiting = |rule| LinkPlan { waiting: told(rule), ..LinkPlan::default() };
    let mut down = Case::subscription();
    down.to = (NodeState::Down, None, Some("Connection refused"));
    let mut unheard = Case::standby();
    unheard.from = (NodeState::Up, None, None);
    let mut rows = vec![
        (
            "LH01",
            Case::subscription().link(LinkState::Removing).plan(waiting("RG03")),
            Removing,
            "it cannot",
        ),
        (
            "LH02",
            Case::subscription().link(LinkState::Removing),
            Removing,
            "nodes.apply() has not run since",
        ),
        ("LH25", Case::standby().plan(refused.clone()), Broken, "it cannot"),
        ("LH03", Case::subscription().plan(refused), Broken, "it cannot"),
        (
            "LH23",
            cloned("streaming database files", 1, Some(4)),
            Copying,
            "\"paris\" is copied from \"london\": streaming database files, 25 % (1024 kB of \
             4096 kB), 30 s left",
        ),
        (
            "LH23",
            cloned("waiting for checkpoint to finish", 0, None),
            Copying,
            "from \"london\": waiting for checkpoint to finish",
        ),
        (
            "LH24",
            unfinished(Case::standby().unread()),
            Initializing,
            "the copy of \"london\" in \"/srv/paris\", made by \"paris\", is no standby yet",
        ),
        ("LH22", unfinished(Case::standby()), Streaming, ""),
        (
            "LH23",
            cloned("streaming database files", 5, Some(4)),
            Copying,
            "database files, 100 % (5120 kB of 5120 kB)",
        ),
        ("LH04", down, Waiting, "node \"paris\" is down: Connection refused"),
        ("LH04", unheard, Waiting, "node \"london\" has not been heard yet"),
        ("LH05", Case::standby().plan(waiting("SU09")), Waiting, "it cannot"),
        (
            "LH05",
            Case::foreign().plan(waiting("RG03")),
            Waiting,
            "it is not known yet whether it is made: it cannot",
        ),
        ("LH06", Case::subscription().plan(step(true)), Missing, "it must"),
        (
            "LH07",
            Case::subscription().target(|t| t.subscriptions.clear()),
            Missing,
            "no subscription of its name on \"paris\"",
        ),
        (
            "LH07",
            Case::standby().source(|s| s.slots.clear()),
            Missing,
            "no slot \"nodes_3f2504e0_1\" on \"london\"",
        ),
        (
            "LH08",
            Case::subscription().source(|s| s.slots.clear()),
            Broken,
            "its slot \"nodes_3f2504e0_1\" on \"london\" is gone: changes have been missed",
        ),
        (
            "LH08",
            Case::standby().slot(|s| s.wal_status = Some("lost".into())),
            Broken,
            "has lost its WAL",
        ),
        (
            "LH09",
            Case::standby().target(|t| (t.in_recovery, t.timeline) = (false, 2)),
            Broken,
            "node \"paris\" is a primary of its own (timeline 2)",
        ),
    ];
    rows.extend(reader_cases());
    rows.extend(flow_cases());
    rows
}

pub fn reader_cases() -> Vec<Row> {
    use LinkStatus::*;
    vec![
        (
            "LH10",
            Case::subscription().unread().found(|f| f.enabled = false).plan(step(false)),
            Drifted,
            "its subscription on \"paris\" was disabled by hand or by disable_on_error; its slot \
             on \"london\" keeps 2048 kB of WAL",
        ),
        ("LH11", Case::subscription().plan(step(false)), Drifted, "it must"),
        (
            "LH12",
            Case::standby().target(|t| t.replay_paused = true),
            Paused,
            "replay is paused on \"paris\"; its slot on \"london\" keeps 2048 kB of WAL",
        ),
        (
            "LH13",
            Case::subscription().unread().found(|f| f.running = true),
            Initializing,
            "the apply worker of \"paris\" connects to \"london\"",
        ),
        (
            "LH13",
            Case::standby().unread().for_so_long(29, false),
            Initializing,
            "the walreceiver of \"paris\" connects to \"london\"",
        ),
        (
            "LH14",
            Case::standby().unread().for_so_long(30, false),
            Broken,
            "nobody reads its slot on \"london\", which keeps 2048 kB of WAL",
        ),
        ("LH14", Case::standby().unread().for_so_long(0, true), Broken, "nobody reads its slot"),
        (
            "LH14",
            Case::subscription().unread().found(|f| f.apply_errors = 4),
            Broken,
            "of WAL; its apply worker has failed 4 times",
        ),
        (
            "LH14",
            Case::subscription().unread().found(|f| f.running = true).for_so_long(30, true),
            Broken,
            "nobody reads its slot",
        ),
        ("LH14", Case::standby_without_slot().unread(), Broken, "no walreceiver runs on \"paris\""),
        (
            "LH15",
            Case::subscription().found(|f| f.running = false),
            Broken,
            "no apply worker runs on \"paris\", yet process 77 on \"london\" holds its slot",
        ),
    ]
}

pub fn flow_cases() -> Vec<Row> {
    use LinkStatus::*;
    let paused = || Case::subscription().unread().found(|f| f.enabled = false);
    let copying = || Case::subscription().found(|f| f.ready = 1);
    let mut probed = Case::foreign();
    probed.probe = probe(Some("permission denied for table items"));
    let mut answered = Case::foreign();
    answered.probe = probe(None);
    let unasked = LinkPlan { waiting: told("RG03"), ..LinkPlan::default() };
    vec![
        (
            "LH16",
            Case::standby().limits(retained_limit()),
            Lagging,
            "its slot on \"london\" keeps 2048 kB of WAL, more than max_retained_wal (1024 kB)",
        ),
        (
            "LH16",
            paused().link(LinkState::Paused).limits(retained_limit()),
            Lagging,
            "it is paused and its slot on \"london\" keeps",
        ),
        (
            "LH17",
            paused().link(LinkState::Paused),
            Paused,
            "it was paused with nodes.pause_link(); its slot on \"london\" keeps 2048 kB of WAL",
        ),
        ("LH18", copying(), Copying, "1 of 3 tables are copied"),
        ("LH18", copying().found(|f| f.sync_errors = 2), Copying, "copies have failed 2 times"),
        (
            "LH19",
            Case::subscription().limits(bytes_limit()),
            Lagging,
            "\"paris\" is 1024 kB behind, more than max_lag_bytes (1024 kB)",
        ),
        (
            "LH19",
            Case::standby().limits(time_limit()),
            Lagging,
            "\"paris\" is 3.0 s behind, more than max_lag (2.0 s)",
        ),
        (
            "LH19",
            Case::standby_without_slot().limits(time_limit()),
            Lagging,
            "7.0 s behind, more than max_lag (2.0 s)",
        ),
        (
            "LH20",
            probed,
            Broken,
            "\"paris\" cannot query \"london\": permission denied for table items",
        ),
        // It was asked before, and so it is there.
        ("LH21", answered.clone().plan(unasked), Up, ""),
        ("LH21", answered, Up, ""),
        ("LH21", Case::foreign(), Up, ""),
        ("LH22", Case::subscription(), Streaming, ""),
        ("LH22", Case::standby(), Streaming, ""),
        ("LH22", Case::standby_without_slot(), Streaming, ""),
    ]
}
