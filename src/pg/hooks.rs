//! What other sessions do that workers must know of. Some commands need a database for
//! themselves (`CountOtherDBBackends`, procarray.c): the worker leaves it for as long as they
//! take. What is committed wakes whom it concerns.

use super::{extension, process, writes};
use crate::shmem;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
use pgrx::{PgList, pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;
static mut PREVIOUS_ACCESS: pg_sys::object_access_hook_type = None;

/// Looks at every utility command and every object from now on. Only from `_PG_init` in the
/// postmaster.
pub fn install() {
    // SAFETY: the postmaster has one thread, and the hooks are its own to chain.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
        PREVIOUS_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(object_access);
    }
}

/// What to do when the transaction of this session ends.
#[derive(Default)]
struct AtEnd {
    registered: bool,
    held: Vec<u32>,
    examine: bool,
    wake: bool,
}

thread_local! {
    static AT_END: RefCell<AtEnd> = RefCell::default();
}

/// Has the worker of this database look again when the transaction has committed.
pub fn wake_worker_at_commit() {
    if shmem::is_there() {
        at_end(|end| end.wake = true);
    }
}

fn at_end(note: impl FnOnce(&mut AtEnd)) {
    AT_END.with_borrow_mut(|end| {
        if !end.registered {
            end.registered = true;
            // SAFETY: the callback lives as long as the process.
            unsafe { pg_sys::RegisterXactCallback(Some(on_transaction_end), std::ptr::null_mut()) };
        }
        note(end);
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut c_void,
) {
    let committed = match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT | pg_sys::XactEvent::XACT_EVENT_PREPARE => true,
        pg_sys::XactEvent::XACT_EVENT_ABORT => false,
        _ => return,
    };
    let nothing = AtEnd { registered: true, ..AtEnd::default() };
    let end = AT_END.with_borrow_mut(|end| std::mem::replace(end, nothing));
    for database in end.held {
        shmem::release(database);
    }
    if committed && end.examine {
        shmem::ask_to_examine(process::database());
    }
    if committed && end.wake {
        shmem::wake_worker(process::database());
    }
}

/// An extension that was made may be this one, whoever made it; one that goes is, however it
/// goes: by a name of its own, with its schema or with its owner.
#[pg_guard]
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub: c_int,
    argument: *mut c_void,
) {
    match access {
        pg_sys::ObjectAccessType::OAT_POST_CREATE if class == pg_sys::ExtensionRelationId => {
            at_end(|end| end.examine = true);
        }
        pg_sys::ObjectAccessType::OAT_DROP if extension::is(class, object) => {
            wake_worker_at_commit();
        }
        _ => {}
    }
    // SAFETY: what Postgres passes goes on as it came.
    unsafe {
        if let Some(previous) = PREVIOUS_ACCESS {
            pg_guard_ffi_boundary(|| previous(access, class, object, sub, argument));
        }
    }
}

#[pg_guard]
#[allow(clippy::too_many_arguments, reason = "the hook's signature")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: Postgres passes a valid statement, and what it passes goes on as it came.
    unsafe {
        look_at((*statement).utilityStmt);
        match PREVIOUS {
            Some(previous) => pg_guard_ffi_boundary(|| {
                previous(
                    statement,
                    text,
                    read_only,
                    context,
                    parameters,
                    environment,
                    receiver,
                    completion,
                );
            }),
            None => pg_sys::standard_ProcessUtility(
                statement,
                text,
                read_only,
                context,
                parameters,
                environment,
                receiver,
                completion,
            ),
        }
    }
}

/// # Safety
/// `node` is a utility statement.
unsafe fn look_at(node: *mut pg_sys::Node) {
    use pg_sys::NodeTag as T;
    // SAFETY: the tag tells which statement it is.
    unsafe {
        match (*node).type_ {
            T::T_TransactionStmt => {
                let kind = (*node.cast::<pg_sys::TransactionStmt>()).kind;
                if kind == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED {
                    // What it commits another transaction has written.
                    writes::admit();
                }
            }
            T::T_DropdbStmt => hold((*node.cast::<pg_sys::DropdbStmt>()).dbname),
            T::T_RenameStmt => {
                let rename = &*node.cast::<pg_sys::RenameStmt>();
                if rename.renameType == pg_sys::ObjectType::OBJECT_DATABASE {
                    hold(rename.subname);
                }
            }
            T::T_AlterDatabaseStmt => {
                let alter = &*node.cast::<pg_sys::AlterDatabaseStmt>();
                if option(alter.options, c"tablespace").is_some() {
                    hold(alter.dbname);
                }
            }
            T::T_CreatedbStmt => {
                let create = &*node.cast::<pg_sys::CreatedbStmt>();
                let template = option(create.options, c"template");
                hold(template.unwrap_or(c"template1".as_ptr()));
            }
            _ => {}
        }
    }
}

/// # Safety
/// `options` is a list of `DefElem`.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*const c_char> {
    // SAFETY: as the caller promises.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg(options);
        let found = options.iter_ptr().find(|option| CStr::from_ptr((**option).defname) == name)?;
        (!(*found).arg.is_null()).then(|| pg_sys::defGetString(found).cast_const())
    }
}

/// Keeps workers out of a database until the transaction ends, for callers who may do such
/// things to it.
///
/// # Safety
/// `name` is a C string.
unsafe fn hold(name: *const c_char) {
    // SAFETY: as the caller promises; a look-up within the transaction of the command.
    let oid = unsafe { pg_sys::get_database_oid(name, true) };
    if oid == pg_sys::InvalidOid || !may_hold(oid) {
        return;
    }
    let oid = oid.to_u32();
    at_end(|end| end.held.push(oid));
    shmem::hold(oid);
}

fn may_hold(database: pg_sys::Oid) -> bool {
    // SAFETY: a look-up within the transaction of the command.
    unsafe {
        let role = pg_sys::GetUserId();
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, role);
        #[cfg(not(feature = "pg15"))]
        pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, role)
    }
}
