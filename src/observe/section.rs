//! The parts of a question that are left out where they could find nothing: to plan them is what
//! they cost, on every new session. Whether they could is looked up first, and again in the
//! answer itself, so that what was left out is known to be absent, not unknown.

use nodes_plan::desired::Interest;
use serde::Deserialize;
use std::ffi::CStr;

/// Which sections of the question for everything may find something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Sections {
    pub publications: bool,
    pub subscriptions: bool,
    /// Servers, user mappings and foreign tables: each of the others needs a server.
    pub foreign: bool,
}

/// Looks up which sections would find something, whosever it is; as a row of one document.
pub const PRESENT: &str = "SELECT json_build_object(\
     'publications', EXISTS (SELECT FROM pg_publication), \
     'subscriptions', EXISTS (SELECT FROM pg_subscription), \
     'foreign', EXISTS (SELECT FROM pg_foreign_server))";

impl Sections {
    /// Those in which the links of a node make something.
    pub fn of(interest: &Interest) -> Self {
        Sections {
            publications: interest.publisher,
            subscriptions: interest.subscriber,
            foreign: interest.foreign,
        }
    }

    pub fn and(self, other: Self) -> Self {
        Sections {
            publications: self.publications || other.publications,
            subscriptions: self.subscriptions || other.subscriptions,
            foreign: self.foreign || other.foreign,
        }
    }

    /// What the question with these sections is prepared as.
    pub fn statement_name(self) -> &'static CStr {
        match (self.publications, self.subscriptions, self.foreign) {
            (false, false, false) => c"facts",
            (true, false, false) => c"facts_p",
            (false, true, false) => c"facts_s",
            (false, false, true) => c"facts_f",
            (true, true, false) => c"facts_ps",
            (true, false, true) => c"facts_pf",
            (false, true, true) => c"facts_sf",
            (true, true, true) => c"facts_psf",
        }
    }

    pub fn has(self, name: &str) -> bool {
        match name {
            "publications" => self.publications,
            "subscriptions" => self.subscriptions,
            "foreign" => self.foreign,
            _ => false,
        }
    }
}

/// Leaves out the sections that are not wanted: each goes from a line "-- with NAME" to "-- end".
pub fn only(sql: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut kept = String::with_capacity(sql.len());
    let mut keep = true;
    for line in sql.lines() {
        match line.trim().strip_prefix("-- ") {
            Some("end") => keep = true,
            Some(comment) if comment.starts_with("with ") => keep = wanted(&comment[5..]),
            Some(_) | None if !keep => {}
            Some(_) | None => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
}
