//! What has changed goes to shared memory, for views.

use super::events::Event;
use super::state::{Shared, State};
use crate::shmem::{self, Full, Key};
use nodes_plan::transition::Severity;
use std::collections::{BTreeSet, HashMap};

/// Publishes every node and link of which something is new.
pub fn stale(shared: &Shared, database: u32) {
    let mut state = shared.state_mut();
    let changed = state.judge_links();
    publish_nodes(&mut state, database);
    publish_links(&mut state, database);
    let changed = changed || !state.events.is_empty();
    drop(state);
    if changed {
        shared.changed().give();
    }
}

fn publish_nodes(state: &mut State, database: u32) {
    let now = state.now();
    let State { nodes, here, board, events, stale_nodes, .. } = state;
    for id in std::mem::take(stale_nodes) {
        let Some(node) = nodes.get_mut(&id) else { continue };
        let answer = std::mem::take(&mut node.answer);
        let record = node.record(now, here.is(node));
        events.extend(board.put(database, Key::Node(id), |text| record.write(&answer, text)));
        node.answer = answer;
    }
}

fn publish_links(state: &mut State, database: u32) {
    let State { links, board, events, .. } = state;
    for id in links.take_stale() {
        let Some(record) = links.record(id) else { continue };
        let write = |text: &mut Vec<u8>| serde_json::to_writer(text, &record);
        events.extend(board.put(database, Key::Link(id), write));
    }
}

/// The place in shared memory where records are put.
#[derive(Default)]
pub struct Board {
    /// Where records were put last.
    places: HashMap<Key, Option<usize>>,
    /// The record that is being put.
    text: Vec<u8>,
    /// What there was no room for, as far as it was told.
    told_full: BTreeSet<&'static str>,
}

impl Board {
    /// Puts a record in place of the last one; returns what people must hear of it.
    fn put(
        &mut self,
        database: u32,
        key: Key,
        write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
    ) -> Option<Event> {
        self.text.clear();
        write(&mut self.text).ok()?;
        let place = self.places.entry(key).or_default();
        let full = shmem::publish(database, key, &self.text, place).err()?;
        // Once, not at every heartbeat.
        self.told_full.insert(full_kind(full, key)).then(|| event_of(full, key))
    }

    /// Removes all records but these.
    pub fn retain(&mut self, database: u32, keep: &BTreeSet<Key>) {
        self.places.retain(|key, _| keep.contains(key));
        shmem::retain(database, keep);
    }
}

fn full_kind(full: Full, key: Key) -> &'static str {
    match (full, key) {
        (Full::Places, Key::Node(_)) => "nodes",
        (Full::Places, Key::Link(_)) => "links",
        (Full::Bytes, _) => "bytes",
    }
}

fn event_of(full: Full, key: Key) -> Event {
    let (what, setting) = match (full, key) {
        (Full::Places, Key::Node(_)) => ("more nodes", "pg_nodes.max_nodes"),
        (Full::Places, Key::Link(_)) => ("more links", "pg_nodes.max_links"),
        (Full::Bytes, _) => ("all that nodes say of themselves", "pg_nodes.max_nodes"),
    };
    Event {
        node: None,
        link: None,
        kind: "shared memory full",
        severity: Severity::Warning,
        message: format!(
            "shared memory has no room for {what}: they are watched, but views do not show them"
        ),
        rule: "",
        hint: Some(format!("Raise {setting} and restart this server.")),
    }
}

impl State {
    /// Everything that may be published.
    pub fn keys(&self) -> BTreeSet<Key> {
        let nodes = self.nodes.keys().map(|id| Key::Node(*id));
        nodes.chain(self.links.ids().map(Key::Link)).collect()
    }
}
