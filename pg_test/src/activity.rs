//! Watching what others can see of running statements.
use crate::Server;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

const QUERIES: &str = "SELECT coalesce(query, '') FROM pg_stat_activity
                       WHERE application_name IN ('pg_nodes', 'psql')";

/// Runs `story` and fails if `needle` shows in `pg_stat_activity` of any of the servers
/// meanwhile. Statements of the harness itself do not count.
#[track_caller]
pub fn while_watched(servers: &[&Server], needle: &str, story: impl FnOnce()) {
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = |server| scope.spawn(move || watch(server, needle, done));
        let watchers: Vec<_> = servers.iter().copied().map(watch).collect();
        let result = catch_unwind(AssertUnwindSafe(story));
        done.store(true, Ordering::Relaxed);
        let seen = watchers.into_iter().map(|watcher| watcher.join().expect("a watcher"));
        let seen: Vec<_> = seen.collect();
        result.unwrap_or_else(|panic| resume_unwind(panic));
        for (server, (shown, looks)) in servers.iter().zip(seen) {
            assert!(shown.is_empty(), "activity of {} shows: {shown:#?}", server.name());
            assert!(looks > 0, "nothing was seen on {}", server.name());
        }
    });
}

/// What showed the needle, and how many statements were seen at all.
fn watch(server: &Server, needle: &str, done: &AtomicBool) -> (Vec<String>, usize) {
    let mut client = server.client("postgres");
    client
        .batch_execute(
            "SET log_statement = 'none'; SET log_min_duration_statement = -1;
             SET debug_print_parse = off; SET debug_print_rewritten = off;
             SET debug_print_plan = off",
        )
        .expect("a quiet session");
    let (mut shown, mut looks) = (Vec::new(), 0);
    while !done.load(Ordering::Relaxed) {
        for row in client.query(QUERIES, &[]).expect("pg_stat_activity") {
            let query: String = row.get(0);
            looks += 1;
            if query.contains(needle) {
                shown.push(query);
            }
        }
    }
    (shown, looks)
}
