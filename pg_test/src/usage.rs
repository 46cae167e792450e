//! What processes use, as the kernel counts it.

use crate::Server;
use std::fs;
use std::time::Duration;

/// Time on a processor; precise to the nanosecond, for processes of one thread.
pub fn cpu(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let first = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(first.unwrap_or_default())
}

/// The same of all processes of a server, those that have ended included.
pub fn cpu_of(server: &Server) -> Duration {
    let postmaster = server.pid();
    let running: Duration = children(postmaster).into_iter().map(cpu).sum();
    running + cpu(postmaster) + cpu_of_ended_children(postmaster)
}

/// A line of `/proc/<pid>/status`, such as `VmRSS`, in megabytes.
pub fn memory(pid: u32, line: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    let kilobytes = value.and_then(|v| v.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() / 1024.0
}

pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    tasks.unwrap_or_default().split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// `cutime` and `cstime`, in hundredths of a second.
fn cpu_of_ended_children(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, after_name)| after_name);
    let ticks = fields.split_whitespace().skip(13).take(2).filter_map(|n| n.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}
