//! What links take of the limits of servers, and who gets what is left: the first in the order
//! of the registry that nothing but time keeps from it. It counts what removed links still
//! hold as given back, and what links are to get as taken, so that it does not matter how much
//! of either is done: a crash changes nothing about who gets the last slot.

use crate::desired::{Link, NodeId};
use crate::observed::Slot;
use crate::step::{Problem, ProblemKind};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

/// What a link, or several, use of one server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Claims {
    pub slots: i64,
    pub walsenders: i64,
    pub subscriptions: i64,
    /// Slots, walsenders and workers of an initial copy: one after the other has them.
    pub copies: i64,
}

impl Add for Claims {
    type Output = Claims;

    fn add(self, other: Claims) -> Claims {
        Claims {
            slots: self.slots + other.slots,
            walsenders: self.walsenders + other.walsenders,
            subscriptions: self.subscriptions + other.subscriptions,
            copies: self.copies.max(other.copies),
        }
    }
}

/// What a link lacks of what its two nodes limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lacking {
    pub from: Claims,
    pub to: Claims,
}

/// What a link has and is to give back.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    /// Its slot on `from`.
    pub slot: Option<Slot>,
    /// Slots of its copies there.
    pub copies: Vec<Slot>,
    /// Whether their readers go too.
    pub readers: bool,
    /// Subscriptions of `to`.
    pub subscriptions: i64,
}

/// What changes on one node until all that can be done is done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Account {
    /// What is given back.
    pub freed: Claims,
    /// What this plan takes.
    pub taken: Claims,
    /// What the links asked so far take in the end, that included.
    pub promised: Claims,
}

/// The accounts of all nodes.
#[derive(Default)]
pub(crate) struct Ledger {
    accounts: BTreeMap<NodeId, Account>,
    /// Slots that are given back, which several links may do.
    freed_slots: BTreeSet<(NodeId, String)>,
}

impl Ledger {
    pub fn account(&self, node: NodeId) -> Account {
        self.accounts.get(&node).copied().unwrap_or_default()
    }

    /// Enters what a link gives back. Its own slot counts for a walsender also while nobody reads
    /// it.
    pub fn free(&mut self, link: &Link, leftover: Leftover) {
        let own = leftover.slot.map(|slot| (slot.name, leftover.readers || !slot.active));
        let copies = leftover.copies.into_iter().map(|slot| (slot.name, slot.active));
        for (slot, walsender) in own.into_iter().chain(copies) {
            if self.freed_slots.insert((link.from, slot)) {
                let freed = &mut self.accounts.entry(link.from).or_default().freed;
                freed.slots += 1;
                freed.walsenders += i64::from(walsender);
            }
        }
        self.accounts.entry(link.to).or_default().freed.subscriptions += leftover.subscriptions;
    }

    /// Enters what a link lacks, unless people must act before it gets that.
    pub fn claim(&mut self, link: &Link, lacking: Lacking, problems: &[Problem]) {
        let has = |kind| problems.iter().any(|problem| problem.kind == kind);
        if has(ProblemKind::Refused) {
            return;
        }
        let waits = has(ProblemKind::Waiting);
        for (node, claims) in [(link.from, lacking.from), (link.to, lacking.to)] {
            let account = self.accounts.entry(node).or_default();
            account.promised = account.promised + claims;
            if !waits {
                account.taken = account.taken + claims;
            }
        }
    }
}
