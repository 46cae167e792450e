//! Changes of the columns of a foreign table, and the types that they may have.

/// A change of one column of a foreign table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnChange {
    Add { name: String, data_type: ColumnType, not_null: bool },
    Drop { name: String },
    Retype { name: String, data_type: ColumnType },
    SetNotNull { name: String },
    DropNotNull { name: String },
}

impl ColumnChange {
    /// The column that queries and views lose, or find changed.
    pub fn breaks(&self) -> Option<&str> {
        match self {
            ColumnChange::Drop { name } | ColumnChange::Retype { name, .. } => Some(name),
            ColumnChange::Add { .. }
            | ColumnChange::SetNotNull { .. }
            | ColumnChange::DropNotNull { .. } => None,
        }
    }
}

/// A type as a remote server's `format_type()` printed it: SQL already, so only what can be
/// nothing but a type is let through; a hostile peer must not write our statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnType(String);

impl ColumnType {
    /// Accepts a name, quoted or not, with schema or without; the further words of the types
    /// that have some (`double precision`, `timestamp(3) with time zone`); a modifier without
    /// quotes, such as PostGIS prints (`(Point,4326)`); and `[]`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = after_name(text)?;
        let rest = rest.strip_prefix('.').map_or(Some(rest), after_name)?;
        let rest = after_words(after_modifier(after_words(rest))?);
        let rest = rest.strip_prefix("[]").unwrap_or(rest);
        rest.is_empty().then(|| ColumnType(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What follows an identifier as `quote_identifier()` prints it.
fn after_name(text: &str) -> Option<&str> {
    if let Some(mut rest) = text.strip_prefix('"') {
        loop {
            rest = rest.split_once('"')?.1;
            match rest.strip_prefix('"') {
                Some(more) => rest = more,
                None => return Some(rest),
            }
        }
    }
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let rest = text.trim_start_matches(part);
    let digit_first = text.starts_with(|c: char| c.is_ascii_digit());
    (rest.len() < text.len() && !digit_first).then_some(rest)
}

/// What follows the further words of a type's name.
fn after_words(mut rest: &str) -> &str {
    const WORDS: [&str; 13] = [
        " precision",
        " varying",
        " without",
        " with",
        " time",
        " zone",
        " year",
        " month",
        " day",
        " hour",
        " minute",
        " second",
        " to",
    ];
    while let Some(more) = WORDS.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = more;
    }
    rest
}

/// What follows a modifier, if there is one; `None` for one that could be more than that.
fn after_modifier(text: &str) -> Option<&str> {
    let Some(modifier) = text.strip_prefix('(') else {
        return Some(text);
    };
    let (inside, rest) = modifier.split_once(')')?;
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | '-' | '.' | ' ');
    (!inside.is_empty() && !inside.contains("--") && inside.chars().all(harmless)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_type_names_pass_as_types() {
        for good in [
            "integer",
            "numeric(10,-2)",
            "timestamp(3) with time zone",
            "interval day to second(3)",
            "character varying(10)[]",
            "text[]",
            "\"char\"",
            "\"my schema\".\"we;ird\"",
            "\"Mixed \"\"Case\"\" type\"",
            "public.geometry(Point,4326)",
            "public.vector(3)[]",
            "double precision",
        ] {
            assert!(ColumnType::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "-",
            "???",
            "int; DROP TABLE x",
            "int, DROP COLUMN a",
            "int DEFAULT f('x')",
            "int DEFAULT x",
            "text COLLATE x",
            "text -- ",
            "text(1--2)",
            "text(x)) OPTIONS (a",
            "text(E'x')",
            "text\"x",
            "\"open",
            "\"open\"\"",
            "varchar(1",
            "varchar()",
            "a.b.c",
        ] {
            assert!(ColumnType::parse(bad).is_none(), "{bad}");
        }
    }
}
