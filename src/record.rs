//! What a worker publishes in shared memory of a node or a link, and views read.

use nodes_plan::headroom::Room;
use nodes_plan::link_health::{LinkHealth, Probe};
use nodes_plan::node_health::NodeState;
use nodes_plan::pulse::Pulse;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as `to_timestamp()` takes them.
pub type Epoch = f64;

pub fn epoch_now() -> Epoch {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A node as the worker sees it. As a text it is three lines: itself as JSON, its rooms, and the
/// last answer as the node gave it. That comes every second, and to put it into words again would
/// cost more than all the rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeRecord<'a> {
    pub state: NodeState,
    pub rule: Cow<'a, str>,
    pub since: Epoch,
    pub reason: Option<String>,
    pub hint: Option<String>,
    pub is_self: bool,
    pub last_seen: Option<Epoch>,
    pub connected_since: Option<Epoch>,
    pub round_trip: Option<RoundTrip>,
    /// WAL that slots retain more of, in bytes a second, by name.
    pub growth: BTreeMap<String, f64>,
    /// See [`NodeRecord::rooms`].
    #[serde(skip)]
    pub rooms: Cow<'a, str>,
    /// The last answer, however old.
    #[serde(skip)]
    pub pulse: Option<Pulse>,
}

impl NodeRecord<'_> {
    /// Appends the record as a text, with the node's last answer in its own words.
    pub fn write(&self, answer: &str, text: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(&mut *text, self)?;
        text.push(b'\n');
        text.extend_from_slice(self.rooms.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(answer.as_bytes());
        Ok(())
    }

    /// Reads such a text back; `None` for that of another version of the library.
    pub fn read(text: &[u8]) -> Option<NodeRecord<'static>> {
        let mut lines = std::str::from_utf8(text).ok()?.splitn(3, '\n');
        let record = serde_json::from_str(lines.next()?).ok()?;
        let rooms = Cow::Owned(lines.next()?.to_owned());
        let pulse = match lines.next()? {
            "" => None,
            answer => Some(serde_json::from_str(answer).ok()?),
        };
        Some(NodeRecord { rooms, pulse, ..record })
    }

    /// What the node has left. Kept as a text: it seldom changes, and few ask for it.
    pub fn rooms(&self) -> Vec<Room> {
        serde_json::from_str(&self.rooms).unwrap_or_default()
    }
}

/// What [`NodeRecord::rooms`] reads.
pub fn rooms_text(rooms: &[Room]) -> String {
    serde_json::to_string(rooms).unwrap_or_default()
}

/// How long heartbeats took, in seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RoundTrip {
    pub last: f64,
    /// Of the last minutes.
    pub p50: f64,
    pub p99: f64,
}

/// A link as the worker sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkRecord {
    pub health: LinkHealth,
    pub since: Epoch,
    /// For a foreign link: whether its server answered as the mapped role, and how fast.
    pub probe: Option<Probe>,
    /// Rows that its initial copy is to bring, as far as statistics of the publisher tell.
    pub expected_rows: Option<i64>,
    /// How large these tables are there.
    pub expected_bytes: Option<i64>,
    /// Rows of the initial copy a second, lately.
    pub copy_rate: Option<f64>,
}

impl LinkRecord {
    /// When the initial copy is done at its present rate.
    pub fn copy_time_left(&self) -> Option<Duration> {
        if let Some(left) = self.health.copy_left {
            return Some(left);
        }
        let left = self.expected_rows? - self.health.copied_rows?;
        let rate = self.copy_rate.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(left.max(0) as f64 / rate).ok()
    }
}
