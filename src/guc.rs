//! Settings of pg_nodes.

use crate::catalog::OwnLimits;
use crate::pg::shmem::Limits;
use crate::pg::{disk, process, writes};
use nodes_plan::link_health::LinkLimits;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};
use std::ffi::CString;
use std::time::Duration;

static CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static STEP_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(300_000);
static KEEP_SESSIONS: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static HEARTBEAT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static NODE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static INVENTORY_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
static EVENT_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60);
static AUTO_APPLY: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX_LAG_BYTES: GucSetting<i32> = GucSetting::<i32>::new(1024 * 1024);
static MAX_LAG: GucSetting<i32> = GucSetting::<i32>::new(60);
static MAX_RETAINED_WAL: GucSetting<i32> = GucSetting::<i32>::new(10 * 1024);
static MAX_NODES: GucSetting<i32> = GucSetting::<i32>::new(128);
static MAX_LINKS: GucSetting<i32> = GucSetting::<i32>::new(1024);
static STARTUP_CHECK: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static ALLOW_SUPERSEDED_WRITES: GucSetting<bool> = GucSetting::<bool>::new(false);
static RESTART_COMMAND: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static BOOT_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

fn milliseconds(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(setting.get().unsigned_abs().into())
}

fn seconds(setting: &GucSetting<i32>) -> Duration {
    Duration::from_secs(setting.get().unsigned_abs().into())
}

/// How long one address of a node may take to answer a connection attempt.
pub fn connect_timeout() -> Duration {
    milliseconds(&CONNECT_TIMEOUT)
}

/// `statement_timeout` on the nodes; zero: none.
pub fn step_timeout() -> Duration {
    milliseconds(&STEP_TIMEOUT)
}

/// How long sessions on nodes may idle between two calls; zero: they are closed.
pub fn keep_sessions() -> Duration {
    milliseconds(&KEEP_SESSIONS)
}

/// From one heartbeat of a node to the next.
pub fn heartbeat_interval() -> Duration {
    milliseconds(&HEARTBEAT_INTERVAL)
}

/// A node that was not heard for so long is down.
pub fn node_timeout() -> Duration {
    milliseconds(&NODE_TIMEOUT)
}

/// How often a worker asks its nodes for everything that is planned by.
pub fn inventory_interval() -> Duration {
    seconds(&INVENTORY_INTERVAL)
}

/// A link's own limits, and the settings for those that it does not have.
pub fn link_limits(own: &OwnLimits) -> LinkLimits {
    LinkLimits {
        max_lag_bytes: own.max_lag_bytes.or_else(max_lag_bytes),
        max_lag: own.max_lag.map(Duration::from_secs).or_else(max_lag),
        max_retained_wal: own.max_retained_wal.or_else(max_retained_wal),
    }
}

/// How long rows of `nodes.event` are kept; zero: for ever.
pub fn event_retention() -> Duration {
    seconds(&EVENT_RETENTION) * 60
}

/// Whether workers apply what is committed.
pub fn auto_apply() -> bool {
    AUTO_APPLY.get()
}

/// How long commits wait, after a start, for the word that this server has no successor; zero:
/// they do not.
pub fn startup_check() -> Duration {
    milliseconds(&STARTUP_CHECK)
}

/// Whether this session writes on a server that has a successor, or may have one.
pub fn allow_superseded_writes() -> bool {
    ALLOW_SUPERSEDED_WRITES.get()
}

/// The shell command that restarts this server where a service manager owns it.
pub fn restart_command() -> Option<String> {
    let command = RESTART_COMMAND.get()?.to_string_lossy().into_owned();
    (!command.is_empty()).then_some(command)
}

/// Bytes of WAL that a link may lag behind; `None`: any.
pub fn max_lag_bytes() -> Option<u64> {
    limit(&MAX_LAG_BYTES).map(|kilobytes| kilobytes * 1024)
}

/// How long a link may lag behind; `None`: any.
pub fn max_lag() -> Option<Duration> {
    limit(&MAX_LAG).map(Duration::from_secs)
}

/// Bytes of WAL that a link's slot may retain; `None`: any.
pub fn max_retained_wal() -> Option<u64> {
    limit(&MAX_RETAINED_WAL).map(|megabytes| megabytes * 1024 * 1024)
}

/// -1 stands for none.
fn limit(setting: &GucSetting<i32>) -> Option<u64> {
    u64::try_from(setting.get()).ok()
}

/// Whether `shared_preload_libraries` is being worked on.
pub fn is_preloading() -> bool {
    // SAFETY: reads a flag of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// What shared memory is sized by.
pub fn shared_memory_limits() -> Limits {
    let number = |setting: &GucSetting<i32>| setting.get().unsigned_abs() as usize;
    Limits { nodes: number(&MAX_NODES), links: number(&MAX_LINKS) }
}

/// Defines the settings; all but those of the postmaster exist whether the library is
/// preloaded or not.
pub fn init() {
    define_session_settings();
    define_gate_settings();
    define_worker_settings();
    define_limits();
    if is_preloading() {
        define_postmaster_settings();
    }
    // SAFETY: called from _PG_init with a static C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_nodes".as_ptr()) };
}

fn define_session_settings() {
    GucRegistry::define_int_guc(
        c"pg_nodes.connect_timeout",
        c"How long one address of a node may take to answer a connection attempt.",
        c"All nodes are asked at the same time, so that silent ones cost this only once.",
        &CONNECT_TIMEOUT,
        100,
        600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.step_timeout",
        c"How long one statement of nodes.apply() may take on a node; 0 for ever.",
        c"Becomes statement_timeout of the sessions that pg_nodes opens.",
        &STEP_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.keep_sessions",
        c"How long sessions on nodes stay open for the next call; 0 closes them at once.",
        c"The nodes end them by idle_session_timeout, or with the session that made them.",
        &KEEP_SESSIONS,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
}

fn define_gate_settings() {
    GucRegistry::define_int_guc(
        c"pg_nodes.startup_check",
        c"How long commits wait, after a start, for the other members of the server's group.",
        c"The worker asks them whether one was promoted meanwhile. 0: commits do not wait.",
        &STARTUP_CHECK,
        0,
        600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"pg_nodes.allow_superseded_writes",
        c"Lets a session write on a server that has a successor, or may have one.",
        c"What it writes is lost when the server returns to its group.",
        &ALLOW_SUPERSEDED_WRITES,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn define_worker_settings() {
    GucRegistry::define_string_guc(
        c"pg_nodes.restart_command",
        c"The shell command that restarts this server, where a service manager owns it.",
        c"Empty: pg_ctl does. It runs as the server's operating system user.",
        &RESTART_COMMAND,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.heartbeat_interval",
        c"From one heartbeat of a node to the next.",
        c"A node can have its own: nodes.alter_node(options => '{\"heartbeat_interval\": \"250ms\"}').",
        &HEARTBEAT_INTERVAL,
        100,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.node_timeout",
        c"A node that was not heard for so long is down.",
        c"A node can have its own: nodes.alter_node(options => '{\"node_timeout\": \"20s\"}').",
        &NODE_TIMEOUT,
        200,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.inventory_interval",
        c"How often the worker asks its nodes for everything that is planned by.",
        c"What changes is asked for at once; this finds what changed unseen.",
        &INVENTORY_INTERVAL,
        1,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.event_retention",
        c"How long rows of nodes.event are kept; 0 for ever.",
        c"",
        &EVENT_RETENTION,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_bool_guc(
        c"pg_nodes.auto_apply",
        c"Whether the worker applies changes of the registry as soon as they are committed.",
        c"Off: nothing happens until somebody calls nodes.apply().",
        &AUTO_APPLY,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_limits() {
    GucRegistry::define_int_guc(
        c"pg_nodes.max_lag_bytes",
        c"A link that is further behind than this is lagging; -1 for no limit.",
        c"A link can have its own: nodes.alter_link(limits => '{\"max_lag_bytes\": \"16MB\"}').",
        &MAX_LAG_BYTES,
        -1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.max_lag",
        c"A link that is behind for longer than this is lagging; -1 for no limit.",
        c"A link can have its own: nodes.alter_link(limits => '{\"max_lag\": \"5min\"}').",
        &MAX_LAG,
        -1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.max_retained_wal",
        c"A link whose slot retains more WAL than this is lagging; -1 for no limit.",
        c"A link can have its own: nodes.alter_link(limits => '{\"max_retained_wal\": \"50GB\"}').",
        &MAX_RETAINED_WAL,
        -1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
}

fn define_postmaster_settings() {
    GucRegistry::define_int_guc(
        c"pg_nodes.max_nodes",
        c"How many nodes shared memory has room for, those of all databases together.",
        c"",
        &MAX_NODES,
        1,
        10_000,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_nodes.max_links",
        c"How many links shared memory has room for, those of all databases together.",
        c"",
        &MAX_LINKS,
        1,
        100_000,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_nodes.boot_id",
        c"A random number of this start of the server, by which it knows itself among the nodes.",
        c"",
        &BOOT_ID,
        GucContext::Internal,
        GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE,
    );
    process::set_internal_setting(c"pg_nodes.boot_id", &random_id());
    disk::define_setting();
    writes::define_setting();
}

/// 64 random bits: the standard library seeds every hasher with them.
fn random_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(()))
}
