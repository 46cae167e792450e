//! What a worker publishes in shared memory of a node or a link, and views read.

use nodes_plan::headroom::Room;
use nodes_plan::link_health::{LinkHealth, Probe};
use nodes_plan::node_health::NodeState;
use nodes_plan::pulse::Pulse;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as `to_timestamp()` takes them.
pub type Epoch = f64;

pub fn epoch_now() -> Epoch {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A node as the worker sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeRecord {
    pub state: NodeState,
    pub rule: String,
    pub since: Epoch,
    pub reason: Option<String>,
    pub hint: Option<String>,
    pub is_self: bool,
    /// The last answer, however old.
    pub pulse: Option<Pulse>,
    pub last_seen: Option<Epoch>,
    pub connected_since: Option<Epoch>,
    pub round_trip: Option<RoundTrip>,
    /// WAL that slots retain, by name.
    #[serde(default)]
    pub growth: BTreeMap<String, f64>,
    #[serde(default)]
    pub rooms: Vec<Room>,
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
        let left = self.expected_rows? - self.health.copied_rows?;
        let rate = self.copy_rate.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(left.max(0) as f64 / rate).ok()
    }
}
