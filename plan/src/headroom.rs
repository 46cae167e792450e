//! What is left of each server's limits, and what the registered links need of them.

use crate::desired::{Link, LinkState, NodeId, Registry, Spec, StandbySpec, SubscriptionSpec};
use crate::observed::{NodeFacts, World};
use crate::refuse::raise;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One limit of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub node: NodeId,
    /// What is limited: `replication slots`, `connections`, …
    pub resource: String,
    /// In use now, by whomever.
    pub used: i64,
    /// What the registered links need in all, whether they have it or not.
    pub needed: i64,
    pub limit: i64,
    /// The setting to raise.
    pub setting: String,
    /// Where it is exhausted, or nearly so.
    pub hint: Option<String>,
}

impl Room {
    /// Whether people must act before it hurts.
    pub fn is_tight(&self) -> bool {
        self.hint.is_some()
    }
}

/// What links need of a limit: in all, and of that what they do not have yet.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    all: i64,
    missing: i64,
}

impl Need {
    fn add(&mut self, number: i64, is_missing: bool) {
        self.all += number;
        self.missing += if is_missing { number } else { 0 };
    }
}

/// What the links of one node need.
#[derive(Debug, Clone, Copy, Default)]
struct Needs {
    slots: Need,
    walsenders: Need,
    /// Apply workers and workers of the initial copy, each with an origin.
    workers: Need,
    /// Of one subscription.
    copies: i64,
    parallel: i64,
    connections: i64,
}

/// The limits of every node that answers.
pub fn headroom(registry: &Registry, world: &World) -> Vec<Room> {
    let mut needs: BTreeMap<NodeId, Needs> = BTreeMap::new();
    for link in registry.links.iter().filter(|link| link.state != LinkState::Removing) {
        add_link(registry, world, link, &mut needs);
    }
    let heard = registry.nodes.keys().filter_map(|id| Some((*id, world.facts(*id)?)));
    heard
        .flat_map(|(id, facts)| {
            let needs = needs.get(&id).copied().unwrap_or_default();
            LIMITS.iter().filter_map(move |limit| limit.room(id, facts, &needs))
        })
        .collect()
}

fn add_link(registry: &Registry, world: &World, link: &Link, needs: &mut BTreeMap<NodeId, Needs>) {
    let slot = registry.mark(link).slot_name();
    let source = world.facts(link.from);
    let has_slot = source.is_some_and(|source| source.slot(&slot).is_some());
    let is_read = source.and_then(|source| source.slot(&slot)).is_some_and(|slot| slot.active);
    let from = needs.entry(link.from).or_default();
    match &link.spec {
        Spec::Standby(StandbySpec { slot, .. }) => {
            from.slots.add(i64::from(*slot), !has_slot);
            // One without a slot cannot be told apart: it is taken to stream.
            from.walsenders.add(1, *slot && !is_read);
        }
        Spec::Foreign(_) => from.connections += 1,
        Spec::Subscription(spec) => {
            let target = world.facts(link.to);
            let found = target.and_then(|target| target.subscription(&link.name));
            let ready = |state| matches!(state, 's' | 'r');
            let is_copied =
                found.is_some_and(|found| found.tables.values().all(|t| ready(t.state)));
            let copies = if is_copied { 0 } else { spec.copies() };
            from.slots.add(1 + copies, !has_slot);
            from.walsenders.add(1 + copies, !is_read);
            if link.state == LinkState::Active {
                let to = needs.entry(link.to).or_default();
                to.workers.add(1 + copies, found.is_none());
                to.copies = to.copies.max(copies);
                to.parallel = to.parallel.max(i64::from(wants_parallel(spec, target)));
            }
        }
    }
}

/// Whether large transactions are to be applied by workers of their own.
fn wants_parallel(spec: &SubscriptionSpec, target: Option<&NodeFacts>) -> bool {
    match spec.options.get("streaming") {
        Some(streaming) => streaming == "parallel",
        None => target.is_some_and(|target| target.major() >= 18),
    }
}

/// When a limit is tight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// When nothing is left for the next.
    Shared,
    /// The same, but others come and go: only what links lack matters.
    Volatile,
    /// When it is below what one subscription needs.
    EachSubscription,
    /// When a tenth is left: it is people who run into it.
    Sessions,
}

struct Limit {
    resource: &'static str,
    kind: Kind,
    setting: fn(&NodeFacts) -> &'static str,
    used: fn(&NodeFacts) -> i64,
    need: fn(&Needs) -> Need,
}

const LIMITS: &[Limit] = &[
    Limit {
        resource: "replication slots",
        kind: Kind::Shared,
        setting: |_| "max_replication_slots",
        used: |facts| facts.slots.len() as i64,
        need: |needs| needs.slots,
    },
    Limit {
        resource: "walsenders",
        kind: Kind::Shared,
        setting: |_| "max_wal_senders",
        used: |facts| facts.walsenders,
        need: |needs| needs.walsenders,
    },
    Limit {
        resource: "logical replication workers",
        kind: Kind::Shared,
        setting: |_| "max_logical_replication_workers",
        used: |facts| facts.usage.logical_workers,
        need: |needs| needs.workers,
    },
    Limit {
        resource: "sync workers per subscription",
        kind: Kind::EachSubscription,
        setting: |_| "max_sync_workers_per_subscription",
        used: |facts| facts.usage.sync_workers,
        need: |needs| Need { all: needs.copies, missing: 0 },
    },
    Limit {
        resource: "parallel apply workers per subscription",
        kind: Kind::EachSubscription,
        setting: |_| "max_parallel_apply_workers_per_subscription",
        used: |facts| facts.usage.parallel_workers,
        need: |needs| Need { all: needs.parallel, missing: 0 },
    },
    Limit {
        resource: "worker processes",
        kind: Kind::Volatile,
        setting: |_| "max_worker_processes",
        used: |facts| facts.background_workers,
        need: |needs| needs.workers,
    },
    Limit {
        resource: "replication origins",
        kind: Kind::Shared,
        setting: NodeFacts::origins_setting,
        used: |facts| facts.usage.origins,
        need: |needs| needs.workers,
    },
    Limit {
        resource: "connections",
        kind: Kind::Sessions,
        setting: |_| "max_connections",
        used: |facts| facts.usage.connections,
        // The watch itself holds one.
        need: |needs| Need { all: needs.connections + 1, missing: 0 },
    },
];

/// Of a setting, what links cannot use.
fn reserved(kind: Kind, facts: &NodeFacts) -> i64 {
    match kind {
        Kind::Shared | Kind::Volatile | Kind::EachSubscription => 0,
        Kind::Sessions => {
            let settings = ["superuser_reserved_connections", "reserved_connections"];
            settings.iter().filter_map(|setting| facts.number(setting)).sum()
        }
    }
}

impl Limit {
    /// `None` where the limit is not known, or the version has none.
    fn room(&self, node: NodeId, facts: &NodeFacts, needs: &Needs) -> Option<Room> {
        let setting = (self.setting)(facts);
        let (used, need) = ((self.used)(facts), (self.need)(needs));
        let reserved = reserved(self.kind, facts);
        let limit = facts.number(setting)? - reserved;
        Some(Room {
            node,
            resource: self.resource.to_owned(),
            used,
            needed: need.all,
            limit,
            setting: setting.to_owned(),
            hint: self.kind.is_tight(used, need, limit).then(|| {
                let enough = self.kind.enough(used, need) + reserved;
                self.kind.hint(setting, enough)
            }),
        })
    }
}

impl Kind {
    fn is_tight(self, used: i64, need: Need, limit: i64) -> bool {
        let exceeded = need.all > limit || used + need.missing > limit;
        match self {
            Kind::Shared => exceeded || used >= limit,
            Kind::Volatile => exceeded,
            Kind::EachSubscription => need.all > limit,
            Kind::Sessions => exceeded || used * 10 >= limit * 9,
        }
    }

    /// What the limit should be at least.
    fn enough(self, used: i64, need: Need) -> i64 {
        match self {
            Kind::EachSubscription => need.all,
            Kind::Shared | Kind::Volatile => need.all.max(used + need.missing.max(1)),
            Kind::Sessions => need.all.max(used * 5 / 4),
        }
    }

    fn hint(self, setting: &str, enough: i64) -> String {
        match self {
            Kind::Sessions => {
                format!("End sessions there that are not needed, or: {}", raise(setting, enough))
            }
            Kind::Shared | Kind::Volatile | Kind::EachSubscription => raise(setting, enough),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(settings: &[(&str, i64)]) -> NodeFacts {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), value.to_string()));
        NodeFacts { settings: settings.collect(), ..NodeFacts::default() }
    }

    #[test]
    fn reserved_connections_are_nobodys() {
        let facts = NodeFacts {
            usage: crate::observed::Usage { connections: 81, ..Default::default() },
            ..facts(&[
                ("max_connections", 100),
                ("superuser_reserved_connections", 7),
                ("reserved_connections", 3),
            ])
        };
        let connections = LIMITS.last().expect("connections");
        let room = connections.room(1, &facts, &Needs::default()).expect("it is known");
        assert_eq!((room.used, room.needed, room.limit), (81, 1, 90));
        assert_eq!(
            room.hint.as_deref(),
            Some(
                "End sessions there that are not needed, or: \
                 Set max_connections to at least 111 there and restart that server."
            )
        );
    }

    #[test]
    fn tight_is_before_it_hurts() {
        let need = |all, missing| Need { all, missing };
        let cases = [
            (Kind::Shared, 3, need(2, 0), 4, false),
            (Kind::Shared, 4, need(2, 0), 4, true),
            (Kind::Shared, 3, need(3, 2), 4, true),
            (Kind::Shared, 1, need(5, 0), 4, true),
            (Kind::Volatile, 4, need(2, 0), 4, false),
            (Kind::Volatile, 4, need(2, 1), 4, true),
            (Kind::EachSubscription, 2, need(1, 0), 2, false),
            (Kind::EachSubscription, 0, need(1, 0), 0, true),
            (Kind::Sessions, 89, need(1, 0), 100, false),
            (Kind::Sessions, 90, need(1, 0), 100, true),
        ];
        for (kind, used, need, limit, tight) in cases {
            assert_eq!(kind.is_tight(used, need, limit), tight, "{used} {need:?} of {limit}");
        }
    }
}
