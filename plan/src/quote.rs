//! The one place where names and values become SQL text. A [`Sql`] carries its text twice: as
//! it is sent, and with secrets masked for every eye.

use crate::conninfo::{Conninfo, Secret};
use crate::name::TableName;
use crate::step::ColumnType;
use std::fmt;

/// What stands in for a secret wherever people can look.
pub const MASK: &str = "********";

/// Quotes an identifier, always: no keyword list can be right for every server version.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string literal as `quote_literal` does (`quote_literal_internal`, quote.c): an
/// `E''` string where there are backslashes, so that `standard_conforming_strings` is moot.
pub fn literal(value: &str) -> String {
    let body = value.replace('\'', "''");
    if body.contains('\\') {
        format!("E'{}'", body.replace('\\', "\\\\"))
    } else {
        format!("'{body}'")
    }
}

/// SQL text under construction.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sql {
    text: String,
    masked: String,
    /// How many statements come before the last.
    earlier: usize,
}

impl Sql {
    /// Starts with a fixed piece of SQL; being `'static`, it cannot hold anybody's input.
    pub fn new(fixed: &'static str) -> Self {
        Sql::default().raw(fixed)
    }

    /// A fixed piece of SQL.
    pub fn raw(mut self, fixed: &'static str) -> Self {
        self.text.push_str(fixed);
        self.masked.push_str(fixed);
        self
    }

    pub fn ident(self, name: &str) -> Self {
        self.plain(&ident(name))
    }

    pub fn table(self, table: &TableName) -> Self {
        self.plain(&table.to_string())
    }

    pub fn literal(self, value: &str) -> Self {
        self.plain(&literal(value))
    }

    /// A literal that only the server may see.
    pub fn secret(mut self, value: &Secret) -> Self {
        self.text.push_str(&literal(value.reveal()));
        self.masked.push_str(&literal(MASK));
        self
    }

    /// A conninfo as a literal, its secrets masked.
    pub fn conninfo(mut self, conninfo: &Conninfo) -> Self {
        self.text.push_str(&literal(&conninfo.render()));
        self.masked.push_str(&literal(&conninfo.to_string()));
        self
    }

    /// The items with `", "` between them.
    pub fn list<T>(
        mut self,
        items: impl IntoIterator<Item = T>,
        each: impl Fn(Sql, T) -> Sql,
    ) -> Self {
        for (position, item) in items.into_iter().enumerate() {
            if position > 0 {
                self = self.raw(", ");
            }
            self = each(self, item);
        }
        self
    }

    /// Ends a statement and begins the next of the same step.
    pub fn then(mut self, next: Sql) -> Self {
        self = self.raw("; ");
        self.earlier += 1 + next.earlier;
        self.text.push_str(&next.text);
        self.masked.push_str(&next.masked);
        self
    }

    /// A whole number.
    pub fn number(self, value: i64) -> Self {
        self.plain(&value.to_string())
    }

    /// A type name, checked when it was parsed.
    pub fn data_type(self, data_type: &ColumnType) -> Self {
        self.plain(data_type.as_str())
    }

    fn plain(mut self, quoted: &str) -> Self {
        self.text.push_str(quoted);
        self.masked.push_str(quoted);
        self
    }

    /// The bytes to send.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same with every secret replaced by [`MASK`].
    pub fn masked(&self) -> &str {
        &self.masked
    }

    /// How many statements it holds, each of which a server answers with one result.
    pub fn statements(&self) -> usize {
        self.earlier + 1
    }

    pub fn has_secret(&self) -> bool {
        self.text != self.masked
    }
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_literals_survive_hostile_text() {
        assert_eq!(ident("we\"ird; DROP--"), "\"we\"\"ird; DROP--\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
    }

    #[test]
    fn secrets_show_only_in_the_text_that_is_sent() {
        let sql = Sql::new("PASSWORD ").secret(&Secret::new("hunter2"));
        assert_eq!(sql.text(), "PASSWORD 'hunter2'");
        assert_eq!(sql.masked(), "PASSWORD '********'");
        assert_eq!(format!("{sql:?}"), sql.masked());
    }
}
