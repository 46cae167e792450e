//! What has changed goes to shared memory, for views.

use super::events::Event;
use super::state::{Shared, State};
use crate::shmem::{self, Full, Key};
use nodes_plan::transition::Severity;
use serde::Serialize;
use std::collections::BTreeSet;

/// Publishes every node and link of which something is new.
pub fn stale(shared: &Shared, database: u32) {
    let mut state = shared.state_mut();
    let changed = state.judge_links();
    for id in std::mem::take(&mut state.stale_nodes) {
        state.publish_record(id, |state, record| put(state, database, Key::Node(id), record));
    }
    for id in state.links.take_stale() {
        if let Some(record) = state.links.record(id) {
            put(&mut state, database, Key::Link(id), &record);
        }
    }
    let changed = changed || !state.events.is_empty();
    drop(state);
    if changed {
        shared.changed().give();
    }
}

fn put(state: &mut State, database: u32, key: Key, record: &impl Serialize) {
    let State { text, places, .. } = state;
    text.clear();
    if serde_json::to_writer(&mut *text, record).is_err() {
        return;
    }
    match shmem::publish(database, key, text, places.entry(key).or_default()) {
        Ok(()) => {}
        // Once, not at every heartbeat.
        Err(full) if state.told_full.insert(full_kind(full, key)) => {
            state.events.push(event_of(full, key));
        }
        Err(_) => {}
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
