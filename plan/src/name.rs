//! Names: of nodes and links as people give them, and those derived from them for objects on
//! the servers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `NAMEDATALEN - 1`: the longest identifier that Postgres keeps whole, in bytes.
pub const MAX_NAME_BYTES: usize = 63;

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    Empty,
    TooLong { bytes: usize },
    Control,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => write!(f, "a name cannot be empty"),
            NameError::TooLong { bytes } => {
                write!(f, "a name has at most {MAX_NAME_BYTES} bytes, this one has {bytes}")
            }
            NameError::Control => write!(f, "a name cannot contain control characters"),
        }
    }
}

/// Checks a node's or link's name: any identifier that Postgres could quote, up to 63 bytes.
/// Control characters are refused because they would make logs and plans ambiguous.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(())
}

/// A table with its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        TableName { schema: schema.into(), name: name.into() }
    }

    /// Reads `schema.table`, each part quoted or folded to lower case as SQL does
    /// (`parse_ident()`); a table alone is in schema `public`.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, rest) = parse_identifier(text.trim())?;
        if rest.is_empty() {
            return Some(TableName::new("public", first));
        }
        let (second, rest) = parse_identifier(rest.strip_prefix('.')?)?;
        rest.is_empty().then(|| TableName::new(first, second))
    }
}

/// Takes one identifier off the front.
fn parse_identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let valid = check_name(name).is_ok() && !name.contains(char::is_whitespace);
        return valid.then(|| (name.to_lowercase(), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return check_name(&name).is_ok().then_some((name, after)),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", crate::quote::ident(&self.schema), crate::quote::ident(&self.name))
    }
}

/// The mark of one registry's objects: what proves that we made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The registry's uuid.
    pub registry: String,
    pub link: i32,
}

impl Mark {
    /// The comment put on servers, schemas, publications and subscriptions.
    pub fn comment(&self) -> String {
        format!("{}{}", Mark::prefix(&self.registry), self.link)
    }

    /// How the comments of one registry's marks begin.
    pub fn prefix(registry: &str) -> String {
        format!("{MANAGED}{registry}{LINK}")
    }

    /// The same with the digest of the conninfo that was put into the object: a role that may not
    /// read that can still see whether it is the one of now.
    pub fn comment_with(&self, digest: &str) -> String {
        if digest.is_empty() {
            return self.comment();
        }
        format!("{}{DIGEST}{digest}", self.comment())
    }

    /// Reads a comment back, whatever may follow; `None` for anything that is no mark.
    pub fn parse(comment: &str) -> Option<Mark> {
        let (registry, _) = comment.strip_prefix(MANAGED)?.split_once(',')?;
        let link = Mark::link_of(registry, comment)?;
        Some(Mark { registry: registry.to_owned(), link })
    }

    /// The link of this registry whose mark a comment is.
    pub fn link_of(registry: &str, comment: &str) -> Option<i32> {
        let rest = comment.strip_prefix(MANAGED)?.strip_prefix(registry)?;
        let link = rest.strip_prefix(LINK)?;
        // A digest may follow.
        link.split_once(',').map_or(link, |(link, _)| link).parse().ok()
    }

    /// Whether a comment is this mark.
    pub fn is(&self, comment: &str) -> bool {
        Mark::link_of(&self.registry, comment) == Some(self.link)
    }

    /// The name of the link's replication slot: `nodes_<8 hex of the registry id>_<link id>`.
    /// It stays within the slot alphabet (`ReplicationSlotValidateName`, slot.c) whatever the
    /// link is called. The same text is the `application_name` that marks `primary_conninfo`.
    pub fn slot_name(&self) -> String {
        Mark::slot_prefix(&self.registry) + &self.link.to_string()
    }

    /// How the names of one registry's slots begin.
    pub fn slot_prefix(registry: &str) -> String {
        let hex = registry.chars().filter(char::is_ascii_hexdigit).take(8);
        let mut prefix = String::from("nodes_");
        prefix.extend(hex.map(|digit| digit.to_ascii_lowercase()));
        prefix + "_"
    }
}

const MANAGED: &str = "managed by pg_nodes: registry ";
const LINK: &str = ", link ";
const DIGEST: &str = ", conninfo ";

/// Between the digests of several conninfos in one comment.
pub const DIGEST_SEPARATOR: char = '+';

/// The digest in a comment by [`Mark::comment_with`].
pub fn digest(comment: &str) -> Option<&str> {
    let (_, rest) = comment.split_once(DIGEST)?;
    Some(rest.split_once(", ").map_or(rest, |(digest, _)| digest))
}

/// The comment that `postgres_fdw` comes with (postgres_fdw.control).
pub const FDW_COMMENT: &str = "foreign-data wrapper for remote PostgreSQL servers";

/// The comment on a `postgres_fdw` extension that this registry created.
pub fn extension_comment(registry: &str) -> String {
    format!("{FDW_COMMENT} (made by pg_nodes: registry {registry})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(link: i32) -> Mark {
        Mark { registry: "3F2504e0-4f89-11d3-9a0c-0305e82c3301".into(), link }
    }

    #[test]
    fn slot_names_fit_the_slot_alphabet() {
        assert_eq!(mark(12).slot_name(), "nodes_3f2504e0_12");
        assert!(mark(i32::MAX).slot_name().len() <= MAX_NAME_BYTES);
    }

    #[test]
    fn a_mark_reads_back_and_nothing_else_does() {
        assert_eq!(Mark::parse(&mark(7).comment()), Some(mark(7)));
        assert!(mark(7).is(&mark(7).comment()));
        assert!(!mark(7).is(&mark(71).comment()) && !mark(7).is("managed by hand"));
        assert_eq!(mark(7).comment_with(""), mark(7).comment());
        let marked = mark(7).comment_with("0a1b");
        for comment in [marked.clone(), format!("{marked}, and more")] {
            assert_eq!((Mark::parse(&comment), digest(&comment)), (Some(mark(7)), Some("0a1b")));
        }
        assert_eq!(digest(&mark(7).comment()), None);
        assert!(mark(7).is(&mark(7).comment()) && mark(7).is(&marked));
        assert!(!mark(7).is(&mark(71).comment()) && !mark(7).is("managed by hand"));
        for comment in ["", "managed by hand", "managed by pg_nodes: registry x, link y, z"] {
            assert_eq!(Mark::parse(comment), None);
        }
    }

    #[test]
    fn table_names_read_as_sql_reads_them() {
        let read = |text| TableName::parse(text).map(|t| (t.schema, t.name));
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(read("public.Orders"), pair("public", "orders"));
        assert_eq!(read("orders"), pair("public", "orders"));
        assert_eq!(read("\"we\"\"ird; x\".\"Ünï\""), pair("we\"ird; x", "Ünï"));
        for bad in ["", ".", "a.", "a.b.c", "\"open", "a b", "\"\"", "a.\"b\"c"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_up_to_63_bytes_pass() {
        assert_eq!(check_name(&"é".repeat(31)), Ok(()));
        assert_eq!(check_name(&"é".repeat(32)), Err(NameError::TooLong { bytes: 64 }));
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name("a\nb"), Err(NameError::Control));
        assert_eq!(check_name("we\"ird; DROP TABLE x--"), Ok(()));
    }
}
