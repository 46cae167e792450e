//! One connection: opened, asked and closed without ever blocking.

use super::attempt::{self, Attempt, Attempts};
use super::error::{Cause, Error};
use super::handle::{Handle, c_string};
use super::trace::{Stage, Trace, Try};
use super::{guard, reactor};
use crate::pg::fd::{self, ExternalFd};
use pq_sys::{ExecStatusType, PGVerbosity, PostgresPollingStatusType as Polling};
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::rc::Rc;
use std::time::Duration;

/// An open connection.
pub struct Connection {
    handle: Handle,
    notices: Rc<Notices>,
    /// How long the peer may take to answer what has no limit of its own.
    limit: Duration,
    /// Given up: the peer owes an answer, behind which nothing more can be asked.
    silent: bool,
    _fd: ExternalFd,
}

/// What the peer said besides results, until somebody takes it; bounded, should nobody do so.
#[derive(Default)]
struct Notices(RefCell<Vec<Notice>>);

struct Notice {
    /// The last word on a connection.
    fatal: bool,
    error: Error,
}

impl Notices {
    const MOST: usize = 100;

    /// Without this libpq prints them into the server log. Called from within libpq, through
    /// which nothing may unwind.
    unsafe extern "C" fn receive(notices: *mut c_void, notice: *const pq_sys::PGresult) {
        // SAFETY: the pointer given below, which lives as long as the connection; the notice
        // lives until we return.
        let (notices, notice) = unsafe { (&*notices.cast::<Notices>(), Fields(notice)) };
        if let Ok(mut list) = notices.0.try_borrow_mut()
            && list.len() < Self::MOST
        {
            let severity = notice.get(pq_sys::PG_DIAG_SEVERITY_NONLOCALIZED).unwrap_or_default();
            let fatal = severity == "FATAL" || severity == "PANIC";
            list.push(Notice { fatal, error: notice.error() });
        }
    }
}

impl Connection {
    /// Tries every address of every host in turn, as libpq does, each for at most `limit`
    /// (or `connect_timeout`, where the parameters say so). All failures are in the error. The
    /// same limit is that of every answer later on.
    pub async fn connect(params: &[(&str, &str)], limit: Duration) -> Result<Self, Error> {
        Self::connect_traced(params, limit, &mut Trace::default()).await
    }

    /// The same, telling what happened on the way.
    pub async fn connect_traced(
        params: &[(&str, &str)],
        limit: Duration,
        trace: &mut Trace,
    ) -> Result<Self, Error> {
        guard::check()?;
        let attempts = attempt::all(params, limit).await?;
        let Attempts { list, lookups, limit: each } = attempts;
        trace.lookups = lookups;
        for attempt in list {
            let place = attempt::describe(&attempt);
            let mut this = Try::begin(place.clone());
            let opened = reactor::timeout(each, Self::open(&attempt, limit, &mut this)).await;
            let late = |_| {
                let ms = each.as_millis();
                Error::of(Cause::Silent, format!("{place} did not answer within {ms} ms"))
            };
            let opened = opened.unwrap_or_else(|elapsed| Err(late(elapsed)));
            this.error = opened.as_ref().err().cloned();
            trace.tries.push(this);
            if let Ok(connection) = opened {
                return Ok(connection);
            }
        }
        let unknown = trace.lookups.iter().filter_map(|lookup| lookup.addresses.as_ref().err());
        let failed = trace.tries.iter().filter_map(|each| each.error.as_ref());
        Err(Error::joined(unknown.chain(failed).cloned().collect()))
    }

    async fn open(attempt: &Attempt, limit: Duration, this: &mut Try) -> Result<Self, Error> {
        let fd = ExternalFd::reserve().ok_or_else(|| Error {
            cause: Cause::Descriptors,
            sqlstate: Some("53000".to_owned()),
            message: fd::EXHAUSTED.to_owned(),
            detail: None,
            hint: Some(fd::EXHAUSTED_HINT.to_owned()),
        })?;
        let handle = Handle::start(attempt)?;
        if handle.is_bad() && attempt::is_unusable(attempt) {
            this.stage = Stage::Parameters;
            return Err(handle.failure());
        }
        let notices = Rc::new(Notices::default());
        let argument = Rc::as_ptr(&notices).cast_mut().cast();
        // SAFETY: the handle is valid; the receiver's argument is dropped after it.
        unsafe {
            pq_sys::PQsetNoticeReceiver(handle.raw(), Some(Notices::receive), argument);
            // For the SQLSTATE of a refusal, see `Error::from_verbose`.
            pq_sys::PQsetErrorVerbosity(handle.raw(), PGVerbosity::PQERRORS_VERBOSE);
        }
        let mut connection = Connection { handle, notices, limit, silent: false, _fd: fd };
        if let Err(error) = connection.finish_connecting(this).await {
            this.fail(&connection.handle, &error);
            return Err(error);
        }
        // SAFETY: the connection is open.
        unsafe { pq_sys::PQsetnonblocking(connection.handle.raw(), 1) };
        Ok(connection)
    }

    async fn finish_connecting(&mut self, this: &mut Try) -> Result<(), Error> {
        let (mut read, mut write) = (false, true);
        loop {
            this.look(&self.handle);
            if self.handle.is_bad() {
                return Err(self.handle.failure());
            }
            reactor::socket(self.socket()?, read, write).await;
            // SAFETY: the handle is valid; nothing of Postgres is called meanwhile.
            match unsafe { pq_sys::PQconnectPoll(self.handle.raw()) } {
                Polling::PGRES_POLLING_OK => {
                    this.look(&self.handle);
                    return Ok(());
                }
                Polling::PGRES_POLLING_READING => (read, write) = (true, false),
                Polling::PGRES_POLLING_WRITING => (read, write) = (false, true),
                _ => return Err(self.handle.failure()),
            }
        }
    }

    /// Runs one statement with text parameters.
    pub async fn query(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Rows, Error> {
        self.send_with(sql, params, |raw, text, count, values| {
            // SAFETY: all strings live until the call returns; libpq copies them.
            unsafe {
                let (types, lengths, formats) =
                    (std::ptr::null(), std::ptr::null(), std::ptr::null());
                pq_sys::PQsendQueryParams(raw, text, count, types, values, lengths, formats, 0)
            }
        })
        .await
    }

    /// Gives a statement a name, under which [`Connection::query_prepared`] runs it without
    /// parsing and planning it again.
    pub async fn prepare(&mut self, name: &CStr, sql: &str) -> Result<(), Error> {
        self.check_answers()?;
        let text = c_string(sql)?;
        // SAFETY: both strings live until the call returns; libpq copies them.
        let sent = unsafe {
            pq_sys::PQsendPrepare(
                self.handle.raw(),
                name.as_ptr(),
                text.as_ptr(),
                0,
                std::ptr::null(),
            )
        };
        self.check_sent(sent)?;
        self.drain(Some(self.limit), |_| {}).await
    }

    /// Runs a prepared statement.
    pub async fn query_prepared(
        &mut self,
        name: &str,
        params: &[Option<&str>],
    ) -> Result<Rows, Error> {
        self.send_with(name, params, |raw, name, count, values| {
            // SAFETY: all strings live until the call returns; libpq copies them.
            unsafe {
                let (lengths, formats) = (std::ptr::null(), std::ptr::null());
                pq_sys::PQsendQueryPrepared(raw, name, count, values, lengths, formats, 0)
            }
        })
        .await
    }

    /// Sends text parameters along with a statement or its name, and returns the last result.
    async fn send_with(
        &mut self,
        text: &str,
        params: &[Option<&str>],
        send: impl FnOnce(*mut pq_sys::PGconn, *const c_char, c_int, *const *const c_char) -> c_int,
    ) -> Result<Rows, Error> {
        self.check_answers()?;
        let text = c_string(text)?;
        let values = params
            .iter()
            .map(|param| param.map(c_string).transpose())
            .collect::<Result<Vec<_>, Error>>()?;
        let pointers: Vec<*const c_char> = values
            .iter()
            .map(|value| value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr()))
            .collect();
        let sent =
            send(self.handle.raw(), text.as_ptr(), pointers.len() as c_int, pointers.as_ptr());
        self.check_sent(sent)?;
        let mut last = Rows::default();
        self.drain(Some(self.limit), |rows| last = rows).await?;
        Ok(last)
    }

    /// Runs one statement of a protocol that knows no parameters (replication).
    pub async fn simple_rows(&mut self, command: &str) -> Result<Rows, Error> {
        let mut last = Rows::default();
        self.simple_each(command, Some(self.limit), |rows| last = rows).await?;
        Ok(last)
    }

    /// Runs one or more statements without parameters.
    pub async fn simple(&mut self, sql: &str) -> Result<(), Error> {
        self.simple_each(sql, Some(self.limit), |_| {}).await
    }

    /// The same, telling of each statement's result when it arrives, all within `limit`.
    pub async fn simple_each(
        &mut self,
        sql: &str,
        limit: Option<Duration>,
        each: impl FnMut(Rows),
    ) -> Result<(), Error> {
        self.check_answers()?;
        let text = c_string(sql)?;
        // SAFETY: the string lives until the call returns; libpq copies it.
        let sent = unsafe { pq_sys::PQsendQuery(self.handle.raw(), text.as_ptr()) };
        self.check_sent(sent)?;
        self.drain(limit, each).await
    }

    fn check_answers(&self) -> Result<(), Error> {
        if self.silent { Err(Error::lost("the connection was given up")) } else { Ok(()) }
    }

    fn check_sent(&self, sent: c_int) -> Result<(), Error> {
        if sent == 1 { Ok(()) } else { Err(self.lost()) }
    }

    /// Reads every result of what was sent. When the limit is over the connection is of no use
    /// any more.
    async fn drain(
        &mut self,
        limit: Option<Duration>,
        each: impl FnMut(Rows),
    ) -> Result<(), Error> {
        let Some(limit) = limit else { return self.read_all(each).await };
        match reactor::timeout(limit, self.read_all(each)).await {
            Ok(read) => read,
            Err(_) => {
                self.silent = true;
                let ms = limit.as_millis();
                Err(Error::lost(format!("the connection is open, but silent for {ms} ms")))
            }
        }
    }

    /// Reads every result; the first error is returned when all are read, so that the
    /// connection is ready for more.
    async fn read_all(&mut self, mut each: impl FnMut(Rows)) -> Result<(), Error> {
        let mut failed = None;
        while let Some(result) = self.next_result().await? {
            if result.is_copy() {
                // libpq would return this result for ever. The connection stays busy, so that
                // nothing more can be sent on it.
                return Err(Error::plain("COPY from or to the client is not expected"));
            }
            match result.outcome() {
                Ok(rows) if failed.is_none() => each(rows),
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn next_result(&mut self) -> Result<Option<RawResult>, Error> {
        loop {
            // SAFETY: the handle is valid.
            let unsent = unsafe { pq_sys::PQflush(self.handle.raw()) };
            // SAFETY: as above.
            let busy = unsafe { pq_sys::PQisBusy(self.handle.raw()) } == 1;
            if unsent < 0 {
                return Err(self.lost());
            }
            if unsent == 0 && !busy {
                // SAFETY: not busy, so this does not block.
                let raw = unsafe { pq_sys::PQgetResult(self.handle.raw()) };
                return Ok((!raw.is_null()).then_some(RawResult(raw)));
            }
            reactor::socket(self.socket()?, true, unsent == 1).await;
            // SAFETY: as above.
            if unsafe { pq_sys::PQconsumeInput(self.handle.raw()) } == 0 {
                return Err(self.lost());
            }
        }
    }

    fn socket(&self) -> Result<c_int, Error> {
        // SAFETY: the handle is valid. Asked anew each time: it changes between addresses.
        let fd = unsafe { pq_sys::PQsocket(self.handle.raw()) };
        if fd < 0 { Err(self.lost()) } else { Ok(fd) }
    }

    /// Why an open connection is of no more use: `connection_failure` where the peer was silent.
    fn lost(&self) -> Error {
        let error = self.handle.failure();
        Error { sqlstate: error.sqlstate.or_else(|| Some("08006".to_owned())), ..error }
    }

    /// Waits, while nothing is asked, until the connection is of no more use, and tells why:
    /// in the peer's last words, where it had any.
    pub async fn until_lost(&mut self) -> Error {
        loop {
            match self.socket() {
                Ok(socket) => reactor::socket(socket, true, false).await,
                Err(error) => return error,
            }
            // SAFETY: the handle is valid.
            if unsafe { pq_sys::PQconsumeInput(self.handle.raw()) } == 0 || self.handle.is_bad() {
                return self.last_words().unwrap_or_else(|| self.lost());
            }
            // What comes unasked is read here: notices, changed settings.
            // SAFETY: as above.
            unsafe { pq_sys::PQisBusy(self.handle.raw()) };
        }
    }

    /// What the peer said before it closed the connection.
    fn last_words(&self) -> Option<Error> {
        let said = self.notices.0.take();
        said.into_iter().rev().find(|notice| notice.fatal).map(|notice| notice.error)
    }

    /// `server_version_num` of the peer.
    pub fn server_version(&self) -> i32 {
        // SAFETY: the handle is valid.
        unsafe { pq_sys::PQserverVersion(self.handle.raw()) }
    }

    /// The process that serves the connection, as it was told when the connection was opened.
    pub fn announced_process(&self) -> c_int {
        // SAFETY: the handle is valid.
        unsafe { pq_sys::PQbackendPID(self.handle.raw()) }
    }

    /// Whether the peer asked for the password and got it.
    pub fn used_password(&self) -> bool {
        self.handle.used_password()
    }
}

/// A result as libpq holds it, freed on drop.
struct RawResult(*mut pq_sys::PGresult);

impl Drop for RawResult {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { pq_sys::PQclear(self.0) }
    }
}

impl RawResult {
    fn is_copy(&self) -> bool {
        use ExecStatusType::{PGRES_COPY_BOTH, PGRES_COPY_IN, PGRES_COPY_OUT};
        // SAFETY: the result is valid.
        let status = unsafe { pq_sys::PQresultStatus(self.0) };
        matches!(status, PGRES_COPY_IN | PGRES_COPY_OUT | PGRES_COPY_BOTH)
    }

    fn outcome(&self) -> Result<Rows, Error> {
        // SAFETY: the result is valid.
        match unsafe { pq_sys::PQresultStatus(self.0) } {
            ExecStatusType::PGRES_TUPLES_OK => Ok(self.rows()),
            ExecStatusType::PGRES_COMMAND_OK | ExecStatusType::PGRES_EMPTY_QUERY => {
                Ok(Rows::default())
            }
            _ => Err(Fields(self.0).error()),
        }
    }

    fn rows(&self) -> Rows {
        // SAFETY: the result is valid and the positions are within its bounds.
        unsafe {
            let (rows, columns) = (pq_sys::PQntuples(self.0), pq_sys::PQnfields(self.0));
            let value = |row, column| {
                let null = pq_sys::PQgetisnull(self.0, row, column) == 1;
                let text = pq_sys::PQgetvalue(self.0, row, column);
                (!null).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            };
            Rows((0..rows).map(|row| (0..columns).map(|c| value(row, c)).collect()).collect())
        }
    }
}

/// The fields of an error or notice; made only of a valid result.
struct Fields(*const pq_sys::PGresult);

impl Fields {
    fn get(&self, code: u8) -> Option<String> {
        // SAFETY: the result is valid; the answer is null or a C string within it.
        unsafe {
            let text = pq_sys::PQresultErrorField(self.0, c_int::from(code));
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    }

    fn error(&self) -> Error {
        let message = self.get(pq_sys::PG_DIAG_MESSAGE_PRIMARY);
        Error {
            cause: Cause::Other,
            sqlstate: self.get(pq_sys::PG_DIAG_SQLSTATE),
            message: message.unwrap_or_else(|| "the connection was lost".to_owned()),
            detail: self.get(pq_sys::PG_DIAG_MESSAGE_DETAIL),
            hint: self.get(pq_sys::PG_DIAG_MESSAGE_HINT),
        }
    }
}

/// Rows of text.
#[derive(Debug, Default)]
pub struct Rows(Vec<Vec<Option<String>>>);

impl Rows {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A value by position; `None` for NULL and beyond the end.
    pub fn value(&self, row: usize, column: usize) -> Option<&str> {
        self.0.get(row)?.get(column)?.as_deref()
    }

    /// The same for keeps.
    pub fn take_value(&mut self, row: usize, column: usize) -> Option<String> {
        self.0.get_mut(row)?.get_mut(column)?.take()
    }
}
