//! Background workers (bgworker.c): registered, started, given signals as Postgres' own
//! processes have them, and ended.

use crate::gate;
use crate::shmem;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::{IntoDatum, PgLogLevel, PgSqlErrorCode, pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
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
    gate::exempt();
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
    // A hot standby lets nobody read in serializable mode.
    set_own_setting(c"default_transaction_isolation", "read committed");
}

/// Has this process give up a lock that it does not get soon: it has all nodes to watch, and a
/// session that waits for it in turn goes on before it takes that for a deadlock.
fn limit_lock_waits() {
    const LIMIT: c_int = 100;
    // SAFETY: reads a setting.
    let limit = LIMIT.min(unsafe { pg_sys::DeadlockTimeout } / 2).max(1);
    set_own_setting(c"lock_timeout", &limit.to_string());
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

/// Gives a setting of this process another value than the configuration.
pub fn set_own_setting(name: &'static CStr, value: &str) {
    set(name, value, pg_sys::GucContext::PGC_SUSET);
}

/// Gives a setting that nobody can change its value, in the postmaster before it forks.
pub fn set_internal_setting(name: &'static CStr, value: &str) {
    set(name, value, pg_sys::GucContext::PGC_INTERNAL);
}

fn set(name: &'static CStr, value: &str, context: pg_sys::GucContext::Type) {
    let Ok(value) = CString::new(value) else { return };
    // SAFETY: the setting is defined; Postgres copies the value.
    unsafe {
        let source = pg_sys::GucSource::PGC_S_OVERRIDE;
        pg_sys::SetConfigOption(name.as_ptr(), value.as_ptr(), context, source);
    }
}

type Show = unsafe extern "C-unwind" fn() -> *const c_char;

/// Defines a setting that is read and never kept: `show` says what it is, and cannot fail. Only
/// from `_PG_init`.
pub fn define_shown_setting(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    flags: u32,
    show: Show,
) {
    // Postgres wants a place for the value that is never used.
    let nothing: &'static mut *mut c_char = Box::leak(Box::new(std::ptr::null_mut()));
    // SAFETY: all strings are static; Postgres alone uses the place.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            name.as_ptr(),
            short.as_ptr(),
            long.as_ptr(),
            nothing,
            c"".as_ptr(),
            pg_sys::GucContext::PGC_INTERNAL,
            flags as i32,
            None,
            None,
            Some(show),
        );
    }
}

/// Keeps a text for Postgres to read it, until the next one.
pub fn shown(text: String) -> *const c_char {
    thread_local! {
        static SHOWN: RefCell<CString> = RefCell::default();
    }
    SHOWN.with_borrow_mut(|shown| {
        *shown = CString::new(text).unwrap_or_default();
        shown.as_ptr()
    })
}

/// Whether this process vacuums by itself: it writes nothing that anybody could miss.
pub fn is_autovacuum() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_AUTOVAC_WORKER }
}

/// Whether there is a postmaster: not where a single user repairs the server, or an upgrade runs.
pub fn has_postmaster() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { pg_sys::IsPostmasterEnvironment && !pg_sys::IsBinaryUpgrade }
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
