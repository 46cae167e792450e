//! A `PGconn`: made, looked at and closed.

use super::attempt::Attempt;
use super::conninfo::read_options;
use super::error::Error;
use pq_sys::ConnStatusType;
use std::ffi::{CStr, CString};

/// Closed on drop, which neither blocks nor raises, also while an error unwinds.
pub struct Handle(*mut pq_sys::PGconn);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: ours, closed once. What the peer has sent is read first: a socket closed with
        // unread data resets the connection, and the peer's log tells of it.
        unsafe {
            if pq_sys::PQstatus(self.0) == ConnStatusType::CONNECTION_OK {
                pq_sys::PQconsumeInput(self.0);
            }
            pq_sys::PQfinish(self.0);
        }
    }
}

impl Handle {
    /// Begins to connect to an address, or finds the parameters wrong.
    pub fn start(attempt: &Attempt) -> Result<Self, Error> {
        let strings = attempt
            .iter()
            .map(|(key, value)| Ok((c_string(key)?, c_string(value)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let end = [std::ptr::null()];
        let keys: Vec<_> = strings.iter().map(|(key, _)| key.as_ptr()).chain(end).collect();
        let values: Vec<_> = strings.iter().map(|(_, value)| value.as_ptr()).chain(end).collect();
        // SAFETY: both arrays end with null and live until the call returns.
        let raw = unsafe { pq_sys::PQconnectStartParams(keys.as_ptr(), values.as_ptr(), 0) };
        if raw.is_null() { Err(Error::plain("out of memory")) } else { Ok(Handle(raw)) }
    }

    /// For libpq's functions; valid as long as the handle lives.
    pub fn raw(&self) -> *mut pq_sys::PGconn {
        self.0
    }

    pub fn status(&self) -> ConnStatusType {
        // SAFETY: the handle is valid.
        unsafe { pq_sys::PQstatus(self.0) }
    }

    pub fn is_bad(&self) -> bool {
        self.status() == ConnStatusType::CONNECTION_BAD
    }

    /// Whether the peer asked for the password and got it.
    pub fn used_password(&self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { pq_sys::PQconnectionUsedPassword(self.0) == 1 }
    }

    /// Whether the server has told its settings, as it does when a session begins.
    pub fn has_settings(&self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { !pq_sys::PQparameterStatus(self.0, c"server_version".as_ptr()).is_null() }
    }

    /// Protocol and cipher of TLS, where the connection is encrypted by it.
    pub fn tls(&self) -> Option<String> {
        // SAFETY: the handle is valid.
        let encrypted = unsafe { pq_sys::PQsslInUse(self.0) == 1 };
        let attribute = |name: &CStr| {
            // SAFETY: as above; the answer is null or a C string that the connection holds.
            unsafe {
                let text = pq_sys::PQsslAttribute(self.0, name.as_ptr());
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        let both = [attribute(c"protocol"), attribute(c"cipher")];
        encrypted.then(|| both.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    /// libpq's words for what is wrong with the connection.
    pub fn failure(&self) -> Error {
        // SAFETY: the handle is valid and the message a C string until the next call.
        let text = unsafe { CStr::from_ptr(pq_sys::PQerrorMessage(self.0)) };
        match Error::from_verbose(&text.to_string_lossy()) {
            error if error.message.is_empty() => Error::plain("the connection was lost"),
            error => error,
        }
    }

    /// What it was given, with what the environment and a service file added.
    pub fn options(&self) -> Vec<(String, String)> {
        // SAFETY: the handle is valid; the list is freed by read_options.
        unsafe { read_options(pq_sys::PQconninfo(self.0), |option| option.val) }
    }
}

pub fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::plain("a statement cannot contain a null byte"))
}
