//! libpq's own parser of connection strings.

use super::error::one_line;
use std::ffi::{CStr, CString, c_char};

/// Reads a conninfo string or URI; only what it sets is returned. The error is libpq's message.
pub fn parse(conninfo: &str) -> Result<Vec<(String, String)>, String> {
    let text = CString::new(conninfo).map_err(|_| "it contains a null byte".to_owned())?;
    let mut message: *mut c_char = std::ptr::null_mut();
    // SAFETY: both pointers are valid for the call; the results are freed below.
    let options = unsafe { pq_sys::PQconninfoParse(text.as_ptr(), &mut message) };
    if options.is_null() {
        return Err(take_message(message));
    }
    // SAFETY: libpq's list, used no more.
    Ok(unsafe { read_options(options, |option| option.val) })
}

/// libpq's own words, freed.
fn take_message(message: *mut c_char) -> String {
    if message.is_null() {
        return "out of memory".to_owned();
    }
    // SAFETY: libpq returned a C string that is ours to free.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above, freed once.
    unsafe { pq_sys::PQfreemem(message.cast()) };
    without_quotes(&one_line(&text))
}

/// libpq quotes the part it stumbled over, and that part may be a password, itself with quotes
/// in it: all from the first quoted text of more than one character to the last quote goes.
/// The name of an unknown option stays.
fn without_quotes(message: &str) -> String {
    if message.starts_with("invalid connection option") {
        return message.to_owned();
    }
    let quotes: Vec<usize> = message.match_indices('"').map(|(at, _)| at).collect();
    let long = quotes.windows(2).step_by(2).find(|pair| pair[1] - pair[0] > 2);
    match (long, quotes.last()) {
        (Some(pair), Some(last)) => format!("{}\"…{}", &message[..pair[0]], &message[*last..]),
        _ => message.to_owned(),
    }
}

/// Every option that this libpq knows.
pub fn keywords() -> Vec<String> {
    // SAFETY: libpq's list, used no more.
    let pairs = unsafe { read_options(pq_sys::PQconndefaults(), |option| option.keyword) };
    pairs.into_iter().map(|(keyword, _)| keyword).collect()
}

/// Copies what is set in a list of options and frees it.
///
/// # Safety
/// `options` comes from libpq (null when it had no memory) and is not used afterwards.
pub unsafe fn read_options(
    options: *mut pq_sys::PQconninfoOption,
    value: impl Fn(&pq_sys::_PQconninfoOption) -> *mut c_char,
) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    if options.is_null() {
        return pairs;
    }
    let mut next = options;
    // SAFETY: libpq ends the array with a null keyword; all strings in it are C strings.
    unsafe {
        while !(*next).keyword.is_null() {
            let value = value(&*next);
            if !value.is_null() {
                let text = |s: *mut c_char| CStr::from_ptr(s).to_string_lossy().into_owned();
                pairs.push((text((*next).keyword), text(value)));
            }
            next = next.add(1);
        }
        pq_sys::PQconninfoFree(options);
    }
    pairs
}

/// libpq reads a port only when it connects; a wrong one is better refused at once.
pub fn check_ports(pairs: &[(&str, &str)]) -> Result<(), String> {
    let Some((_, ports)) = pairs.iter().find(|(key, _)| *key == "port") else { return Ok(()) };
    let valid = |port: &str| port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0);
    match ports.split(',').map(str::trim).find(|port| !valid(port)) {
        Some(port) => Err(format!("invalid port number: \"{port}\"")),
        None => Ok(()),
    }
}
