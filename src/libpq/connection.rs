//! One connection: opened, asked and closed without ever blocking.

use super::error::{Error, one_line};
use super::{guard, reactor, resolve};
use crate::pg::fd::ExternalFd;
use pq_sys::{ExecStatusType, PostgresPollingStatusType as Polling};
use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

/// An open connection; closed on drop, which neither blocks nor raises.
pub struct Connection {
    raw: *mut pq_sys::PGconn,
    _fd: ExternalFd,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and closed once.
        unsafe { pq_sys::PQfinish(self.raw) }
    }
}

/// One try to connect: the parameters for a single address.
type Attempt = Vec<(String, String)>;

impl Connection {
    /// Tries every address of every host in turn, as libpq does, each for at most `limit`
    /// (or `connect_timeout`, where the parameters say so). All failures are in the error.
    pub async fn connect(params: &[(&str, &str)], limit: Duration) -> Result<Self, Error> {
        guard::check()?;
        let limit = own_timeout(params).unwrap_or(limit);
        let (attempts, mut failures) = attempts(params, limit).await;
        for attempt in attempts {
            match reactor::timeout(limit, Self::open(&attempt)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failures.push(error.message),
                Err(_) => failures.push(format!(
                    "{} did not answer within {} ms",
                    describe(&attempt),
                    limit.as_millis()
                )),
            }
        }
        failures.dedup();
        Err(Error::plain(failures.join("; ")))
    }

    async fn open(attempt: &Attempt) -> Result<Self, Error> {
        let fd = ExternalFd::reserve().ok_or_else(|| Error {
            sqlstate: Some("53000".to_owned()),
            message: "too many open files in this server process".to_owned(),
            detail: None,
            hint: Some("Raise max_files_per_process.".to_owned()),
        })?;
        let mut connection = Connection { raw: start(attempt)?, _fd: fd };
        connection.finish_connecting().await?;
        // SAFETY: the connection is open.
        unsafe { pq_sys::PQsetnonblocking(connection.raw, 1) };
        Ok(connection)
    }

    async fn finish_connecting(&mut self) -> Result<(), Error> {
        let (mut read, mut write) = (false, true);
        loop {
            if self.status_is_bad() {
                return Err(self.failure());
            }
            reactor::socket(self.socket()?, read, write).await;
            // SAFETY: the handle is valid; nothing of Postgres is called meanwhile.
            match unsafe { pq_sys::PQconnectPoll(self.raw) } {
                Polling::PGRES_POLLING_OK => return Ok(()),
                Polling::PGRES_POLLING_READING => (read, write) = (true, false),
                Polling::PGRES_POLLING_WRITING => (read, write) = (false, true),
                _ => return Err(self.failure()),
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
        let text = c_string(sql)?;
        // SAFETY: both strings live until the call returns; libpq copies them.
        let sent = unsafe {
            pq_sys::PQsendPrepare(self.raw, name.as_ptr(), text.as_ptr(), 0, std::ptr::null())
        };
        self.check_sent(sent)?;
        self.drain(|_| {}).await
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
        let text = c_string(text)?;
        let values = params
            .iter()
            .map(|param| param.map(c_string).transpose())
            .collect::<Result<Vec<_>, Error>>()?;
        let pointers: Vec<*const c_char> = values
            .iter()
            .map(|value| value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr()))
            .collect();
        let sent = send(self.raw, text.as_ptr(), pointers.len() as c_int, pointers.as_ptr());
        self.check_sent(sent)?;
        let mut last = Rows::default();
        self.drain(|rows| last = rows).await?;
        Ok(last)
    }

    /// Runs one statement of a protocol that knows no parameters (replication).
    pub async fn simple_rows(&mut self, command: &str) -> Result<Rows, Error> {
        let mut last = Rows::default();
        self.simple_each(command, |rows| last = rows).await?;
        Ok(last)
    }

    /// Runs one or more statements without parameters.
    pub async fn simple(&mut self, sql: &str) -> Result<(), Error> {
        self.simple_each(sql, |_| {}).await
    }

    /// The same, telling of each statement's result when it arrives.
    pub async fn simple_each(&mut self, sql: &str, each: impl FnMut(Rows)) -> Result<(), Error> {
        let text = c_string(sql)?;
        // SAFETY: the string lives until the call returns; libpq copies it.
        let sent = unsafe { pq_sys::PQsendQuery(self.raw, text.as_ptr()) };
        self.check_sent(sent)?;
        self.drain(each).await
    }

    fn check_sent(&self, sent: c_int) -> Result<(), Error> {
        if sent == 1 { Ok(()) } else { Err(self.failure()) }
    }

    /// Reads every result of what was sent; the first error is returned when all are read, so
    /// that the connection is ready for more.
    async fn drain(&mut self, mut each: impl FnMut(Rows)) -> Result<(), Error> {
        let mut failed = None;
        while let Some(result) = self.next_result().await? {
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
            let unsent = unsafe { pq_sys::PQflush(self.raw) };
            // SAFETY: as above.
            let busy = unsafe { pq_sys::PQisBusy(self.raw) } == 1;
            if unsent < 0 {
                return Err(self.failure());
            }
            if unsent == 0 && !busy {
                // SAFETY: not busy, so this does not block.
                let raw = unsafe { pq_sys::PQgetResult(self.raw) };
                return Ok((!raw.is_null()).then_some(RawResult(raw)));
            }
            reactor::socket(self.socket()?, true, unsent == 1).await;
            // SAFETY: as above.
            if unsafe { pq_sys::PQconsumeInput(self.raw) } == 0 {
                return Err(self.failure());
            }
        }
    }

    fn socket(&self) -> Result<c_int, Error> {
        // SAFETY: the handle is valid. Asked anew each time: it changes between addresses.
        let fd = unsafe { pq_sys::PQsocket(self.raw) };
        if fd < 0 { Err(self.failure()) } else { Ok(fd) }
    }

    fn status_is_bad(&self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { pq_sys::PQstatus(self.raw) == pq_sys::ConnStatusType::CONNECTION_BAD }
    }

    /// libpq's words for what is wrong with the connection.
    fn failure(&self) -> Error {
        // SAFETY: the handle is valid and the message a C string until the next call.
        let text = unsafe { CStr::from_ptr(pq_sys::PQerrorMessage(self.raw)) };
        match one_line(&text.to_string_lossy()) {
            text if text.is_empty() => Error::plain("the connection was lost"),
            text => Error::plain(text),
        }
    }

    /// `server_version_num` of the peer.
    pub fn server_version(&self) -> i32 {
        // SAFETY: the handle is valid.
        unsafe { pq_sys::PQserverVersion(self.raw) }
    }

    /// A setting that the peer reports by itself, `is_superuser` for one.
    pub fn parameter_status(&self, name: &CStr) -> Option<String> {
        // SAFETY: the handle is valid; the answer is null or a C string.
        unsafe {
            let value = pq_sys::PQparameterStatus(self.raw, name.as_ptr());
            (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        }
    }

    /// Whether the peer asked for the password and got it.
    pub fn used_password(&self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { pq_sys::PQconnectionUsedPassword(self.raw) == 1 }
    }

    /// Whether the connection is encrypted by TLS.
    pub fn ssl_in_use(&self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { pq_sys::PQsslInUse(self.raw) == 1 }
    }
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::plain("a statement cannot contain a null byte"))
}

fn own_timeout(params: &[(&str, &str)]) -> Option<Duration> {
    let (_, seconds) = params.iter().find(|(key, _)| *key == "connect_timeout")?;
    seconds.parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// Begins to connect.
fn start(attempt: &Attempt) -> Result<*mut pq_sys::PGconn, Error> {
    let strings = attempt
        .iter()
        .map(|(key, value)| Ok((c_string(key)?, c_string(value)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let end = [std::ptr::null()];
    let keys: Vec<_> = strings.iter().map(|(key, _)| key.as_ptr()).chain(end).collect();
    let values: Vec<_> = strings.iter().map(|(_, value)| value.as_ptr()).chain(end).collect();
    // SAFETY: both arrays end with null and live until the call returns. No name is looked up:
    // hostaddr is given, or the host is a directory.
    let raw = unsafe { pq_sys::PQconnectStartParams(keys.as_ptr(), values.as_ptr(), 0) };
    if raw.is_null() { Err(Error::plain("out of memory")) } else { Ok(raw) }
}

fn describe(attempt: &Attempt) -> String {
    let get = |wanted: &str| {
        attempt.iter().find(|(key, _)| key == wanted).map_or("", |(_, value)| value.as_str())
    };
    match (get("hostaddr"), get("host")) {
        ("", host) => format!("server on \"{host}\", port {}", get("port")),
        (address, "") => format!("server at {address}, port {}", get("port")),
        (address, host) => format!("server at \"{host}\" ({address}), port {}", get("port")),
    }
}

/// Takes a conninfo of several hosts and addresses apart, so that each gets its own limit and
/// no name is looked up inside libpq. Names that cannot be resolved are failures already.
async fn attempts(params: &[(&str, &str)], limit: Duration) -> (Vec<Attempt>, Vec<String>) {
    let get = |wanted: &str| params.iter().find(|(key, _)| *key == wanted).map(|(_, v)| *v);
    let mut base: Attempt =
        params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    base.push(("fallback_application_name".to_owned(), "pg_nodes".to_owned()));
    base.push(("client_encoding".to_owned(), "UTF8".to_owned()));
    // A service file may name the host: then all is left to libpq.
    if get("service").is_some() || (get("host").is_none() && get("hostaddr").is_none()) {
        return (vec![base], vec![]);
    }
    let mut failures = Vec::new();
    let mut places = Vec::new();
    for place in places_of(get("host"), get("hostaddr"), get("port")) {
        if !place.hostaddr.is_empty() || is_local(&place.host) {
            places.push(place);
            continue;
        }
        match reactor::timeout(limit, resolve::addresses(&place.host)).await {
            Ok(Ok(addresses)) => places.extend(
                addresses.iter().map(|ip| Place { hostaddr: ip.to_string(), ..place.clone() }),
            ),
            Ok(Err(error)) => failures.push(error.message),
            Err(_) => failures.push(format!("host name \"{}\" did not resolve", place.host)),
        }
    }
    (passes(&base, &places), failures)
}

/// `prefer-standby` means two rounds; every other choice libpq makes on a single address too.
fn passes(base: &Attempt, places: &[Place]) -> Vec<Attempt> {
    let wants = base.iter().find(|(key, _)| key == "target_session_attrs");
    let rounds = match wants.map(|(_, value)| value.as_str()) {
        Some("prefer-standby") => vec![Some("standby"), Some("any")],
        Some(_) | None => vec![None],
    };
    let attempt = |place: &Place, attrs: Option<&str>| {
        let mut attempt = base.clone();
        let mut set = |key: &str, value: &str| {
            attempt.retain(|(known, _)| known != key);
            if !value.is_empty() {
                attempt.push((key.to_owned(), value.to_owned()));
            }
        };
        set("host", &place.host);
        set("hostaddr", &place.hostaddr);
        set("port", &place.port);
        if let Some(attrs) = attrs {
            set("target_session_attrs", attrs);
        }
        attempt
    };
    rounds
        .into_iter()
        .flat_map(|attrs| places.iter().map(move |place| (place, attrs)))
        .map(|(place, attrs)| attempt(place, attrs))
        .collect()
}

#[derive(Clone)]
struct Place {
    host: String,
    hostaddr: String,
    port: String,
}

/// Lists of hosts, addresses and ports belong together by position; one port serves all.
fn places_of(host: Option<&str>, hostaddr: Option<&str>, port: Option<&str>) -> Vec<Place> {
    let split = |list: Option<&str>| -> Vec<String> {
        list.map(|list| list.split(',').map(|item| item.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let (hosts, addresses, ports) = (split(host), split(hostaddr), split(port));
    let at = |list: &[String], i: usize| list.get(i).cloned().unwrap_or_default();
    (0..hosts.len().max(addresses.len()))
        .map(|i| Place {
            host: at(&hosts, i),
            hostaddr: at(&addresses, i),
            port: if ports.len() == 1 { at(&ports, 0) } else { at(&ports, i) },
        })
        .collect()
}

/// A directory of Unix sockets, an abstract socket, or libpq's default.
fn is_local(host: &str) -> bool {
    host.is_empty() || host.starts_with('/') || host.starts_with('@')
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
    fn outcome(&self) -> Result<Rows, Error> {
        // SAFETY: the result is valid.
        match unsafe { pq_sys::PQresultStatus(self.0) } {
            ExecStatusType::PGRES_TUPLES_OK => Ok(self.rows()),
            ExecStatusType::PGRES_COMMAND_OK | ExecStatusType::PGRES_EMPTY_QUERY => {
                Ok(Rows::default())
            }
            ExecStatusType::PGRES_COPY_IN
            | ExecStatusType::PGRES_COPY_OUT
            | ExecStatusType::PGRES_COPY_BOTH => {
                Err(Error::plain("COPY through the connection is not expected"))
            }
            _ => Err(self.error()),
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

    fn error(&self) -> Error {
        let message = self.field(pq_sys::PG_DIAG_MESSAGE_PRIMARY as c_int);
        Error {
            sqlstate: self.field(pq_sys::PG_DIAG_SQLSTATE as c_int),
            message: message.unwrap_or_else(|| "the connection was lost".to_owned()),
            detail: self.field(pq_sys::PG_DIAG_MESSAGE_DETAIL as c_int),
            hint: self.field(pq_sys::PG_DIAG_MESSAGE_HINT as c_int),
        }
    }

    fn field(&self, code: c_int) -> Option<String> {
        // SAFETY: the result is valid; the answer is null or a C string within it.
        unsafe {
            let text = pq_sys::PQresultErrorField(self.0, code);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    }
}

/// Rows of text.
#[derive(Debug, Default)]
pub struct Rows(Vec<Vec<Option<String>>>);

impl Rows {
    /// A value by position; `None` for NULL and beyond the end.
    pub fn value(&self, row: usize, column: usize) -> Option<&str> {
        self.0.get(row)?.get(column)?.as_deref()
    }
}
