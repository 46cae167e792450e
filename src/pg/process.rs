//! Background workers (bgworker.c): registered, started, given signals as Postgres' own
//! processes have them, and ended.

use crate::shmem;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::{IntoDatum, PgLogLevel, PgSqlErrorCode, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_int};
use std::time::Duration;

const LIBRARY: &str = "pg_nodes";

/// Registers the launcher with the postmaster, which starts it again a second after a crash.
pub fn register_launcher() {
    BackgroundWorkerBuilder::new("pg_nodes launcher")
        .set_type("pg_nodes launcher")
        .set_library(LIBRARY)
        .set_function("pg_nodes_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// Starts a worker for a database; the launcher's latch is set when it has begun and when it
/// has ended. `false`: all `max_worker_processes` are in use.
pub fn start_worker(database: u32, name: &str) -> bool {
    // SAFETY: reads a number of this process.
    let launcher = unsafe { pg_sys::MyProcPid };
    BackgroundWorkerBuilder::new(&short(&format!("pg_nodes worker for {name}")))
        .set_type("pg_nodes worker")
        .set_library(LIBRARY)
        .set_function("pg_nodes_worker_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .set_restart_time(None)
        .set_argument(pg_sys::Oid::from(database).into_datum())
        .set_notify_pid(launcher)
        .load_dynamic()
        .is_ok()
}

/// A worker's name has 96 bytes, the last of which is 0.
fn short(name: &str) -> String {
    let mut end = name.len().min(95);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_nodes_launcher_main(_argument: pg_sys::Datum) {
    begin(pg_sys::InvalidOid);
    crate::worker::launcher::run();
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_nodes_worker_main(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    // SAFETY: called at the beginning of a background worker; Postgres calls back when the
    // process ends by itself, and a process that does not takes all shared memory with it.
    unsafe { pg_sys::before_shmem_exit(Some(on_worker_exit), argument) };
    if !shmem::begin_worker(database.to_u32(), id()) {
        return;
    }
    begin(database);
    limit_lock_waits();
    crate::worker::run(database.to_u32());
}

#[pg_guard]
unsafe extern "C-unwind" fn on_worker_exit(_code: c_int, argument: pg_sys::Datum) {
    shmem::end_worker(argument.value() as u32, id(), shmem::Ended::Failed);
}

/// Signals and connection. SIGTERM ends whatever runs, statements of our own included, as it
/// does in a session; pgrx's own handler would wait for them.
fn begin(database: pg_sys::Oid) {
    unsafe extern "C-unwind" {
        fn die(signal: c_int);
        fn SignalHandlerForConfigReload(signal: c_int);
    }
    // SAFETY: both handlers are Postgres' own and do what they do in every backend.
    unsafe {
        set_handler(pg_sys::SIGTERM as c_int, die);
        set_handler(pg_sys::SIGHUP as c_int, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
        let nobody = pg_sys::InvalidOid;
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, nobody, 0);
    }
}

/// Has this process give up a lock that it does not get soon: it has all nodes to watch, and a
/// session that waits for it in turn goes on before it takes that for a deadlock.
fn limit_lock_waits() {
    const LIMIT: c_int = 100;
    // SAFETY: reads a setting, and sets one of this process; Postgres copies the value.
    unsafe {
        let limit = LIMIT.min(pg_sys::DeadlockTimeout / 2).max(1);
        let value = CString::new(limit.to_string()).unwrap_or_default();
        pg_sys::SetConfigOption(
            c"lock_timeout".as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// # Safety
/// `handler` is fit for a signal.
unsafe fn set_handler(signal: c_int, handler: unsafe extern "C-unwind" fn(c_int)) {
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// This process's number.
pub fn id() -> i32 {
    // SAFETY: reads a number of this process.
    unsafe { pg_sys::MyProcPid }
}

/// The database of this process.
pub fn database() -> u32 {
    // SAFETY: reads a number of this process.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// Reads the settings again where the postmaster asked for it.
pub fn reload_settings() -> bool {
    // SAFETY: the flag is this process's own; the call is what every backend does then.
    unsafe {
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}

/// What `pg_stat_activity` shows of a worker besides its wait event.
pub fn show_activity(text: &str) {
    let Ok(text) = CString::new(text) else { return };
    // SAFETY: Postgres copies the text.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, text.as_ptr()) };
}

/// One line of the server log.
pub fn log(message: &str, detail: Option<&str>, hint: Option<&str>) {
    let code = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    let mut report = pg_sys::panic::ErrorReport::new(code, message.to_owned(), "");
    if let Some(detail) = detail {
        report = report.set_detail(detail.to_owned());
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint.to_owned());
    }
    report.report(PgLogLevel::LOG);
}

/// Gives a setting that nobody can change its value, in the postmaster before it forks.
pub fn set_internal_setting(name: &'static CStr, value: &str) {
    let Ok(value) = CString::new(value) else { return };
    // SAFETY: the setting is defined; Postgres copies the value.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_INTERNAL,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Gives memory back to the system that much work at once has left behind; the C library by
/// itself only gives back what lies at the end.
pub fn trim_memory() {
    // SAFETY: takes nothing away that is in use; any thread may call it.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
