//! The value of `synchronous_standby_names`, read as Postgres reads it (`syncrep_gram.y`,
//! `syncrep_scanner.l`) and written.

use crate::name::Mark;
use crate::quote::ident;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Which of the standbys listed commits wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Whichever are the quickest.
    #[default]
    Any,
    /// Those listed first, as long as they stream.
    First,
}

impl Method {
    pub fn label(self) -> &'static str {
        match self {
            Method::Any => "any",
            Method::First => "first",
        }
    }
}

/// The setting.
pub const SETTING: &str = "synchronous_standby_names";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyNames {
    pub method: Method,
    /// How many of them commits wait for.
    pub number: usize,
    /// By `application_name`; `*` is anybody.
    pub names: Vec<String>,
}

const ANYBODY: &str = "*";

impl StandbyNames {
    /// `None`: it lists nobody, or Postgres would refuse it.
    pub fn parse(value: &str) -> Option<Self> {
        let tokens = tokens(value)?;
        let (method, rest) = match tokens.as_slice() {
            [Token::Plain(word), rest @ ..]
                if matches!(rest, [Token::Plain(_), Token::Open, ..]) =>
            {
                match word.to_ascii_lowercase().as_str() {
                    "any" => (Method::Any, rest),
                    "first" => (Method::First, rest),
                    _ => return None,
                }
            }
            all => (Method::First, all),
        };
        let (number, list) = match rest {
            [Token::Plain(number), Token::Open, list @ .., Token::Close] => {
                (number.parse().ok().filter(|number| *number > 0)?, list)
            }
            list => (1, list),
        };
        Some(StandbyNames { method, number, names: names(list)? })
    }

    /// Whether commits wait for the same: for any of them the order says nothing.
    pub fn is_same(&self, other: &StandbyNames) -> bool {
        let set = |names: &StandbyNames| names.names.iter().cloned().collect::<BTreeSet<_>>();
        let ordered = self.method == Method::First;
        (self.method, self.number) == (other.method, other.number)
            && if ordered { self.names == other.names } else { set(self) == set(other) }
    }

    /// Whether all of them are standbys of one registry: then the list is its own.
    pub fn are_of(&self, registry: &str) -> bool {
        let prefix = Mark::slot_prefix(registry);
        self.names.iter().all(|name| name.starts_with(&prefix))
    }

    /// Postgres compares names without regard to case.
    pub fn lists(&self, name: &str) -> bool {
        self.names.iter().any(|listed| listed.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for StandbyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.names.iter().map(|name| ident(name)).collect();
        let method = self.method.label().to_ascii_uppercase();
        write!(f, "{method} {} ({})", self.number, names.join(", "))
    }
}

#[derive(Debug, PartialEq)]
enum Token {
    /// A name or number without quotes, or `*`.
    Plain(String),
    Quoted(String),
    Comma,
    Open,
    Close,
}

fn tokens(value: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = value.chars().peekable();
    while let Some(first) = rest.next() {
        tokens.push(match first {
            ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' => continue,
            ',' => Token::Comma,
            '(' => Token::Open,
            ')' => Token::Close,
            '*' => Token::Plain(ANYBODY.to_owned()),
            '"' => {
                let mut name = String::new();
                loop {
                    match rest.next()? {
                        '"' if rest.next_if_eq(&'"').is_some() => name.push('"'),
                        '"' => break Token::Quoted(name),
                        other => name.push(other),
                    }
                }
            }
            first if is_word(first) => {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|c| is_word(*c)) {
                    word.push(next);
                }
                Token::Plain(word)
            }
            _ => return None,
        });
    }
    Some(tokens)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

/// Names with commas between them.
fn names(list: &[Token]) -> Option<Vec<String>> {
    let name = |item: &[Token]| match item {
        [Token::Plain(name) | Token::Quoted(name)] => Some(name.clone()),
        _ => None,
    };
    list.split(|token| *token == Token::Comma).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<(Method, usize, Vec<String>)> {
        StandbyNames::parse(value).map(|read| (read.method, read.number, read.names))
    }

    fn of(method: Method, number: usize, names: &[&str]) -> Option<(Method, usize, Vec<String>)> {
        Some((method, number, names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn values_are_read_as_postgres_reads_them() {
        assert_eq!(read("s1"), of(Method::First, 1, &["s1"]));
        assert_eq!(read("s1, \"s,2\""), of(Method::First, 1, &["s1", "s,2"]));
        assert_eq!(read("2 (a, b,c)"), of(Method::First, 2, &["a", "b", "c"]));
        assert_eq!(read("first 2(a,b)"), of(Method::First, 2, &["a", "b"]));
        assert_eq!(read(" ANY 1 (*)"), of(Method::Any, 1, &["*"]));
        assert_eq!(read(r#"ANY 1 ("we""ird", 7)"#), of(Method::Any, 1, &["we\"ird", "7"]));
        assert_eq!(read("\"any\""), of(Method::First, 1, &["any"]));
        for wrong in
            ["", " ", "ANY 1 ()", "ANY 0 (a)", "ANY x (a)", "some 1 (a)", "a,", "\"a", "a;b"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let names = vec!["nodes_3f2504e0_1".to_owned(), "we\"ird, (x)".to_owned()];
        let written = StandbyNames { method: Method::Any, number: 2, names };
        assert_eq!(written.to_string(), r#"ANY 2 ("nodes_3f2504e0_1", "we""ird, (x)")"#);
        assert_eq!(StandbyNames::parse(&written.to_string()), Some(written));
    }

    #[test]
    fn order_matters_to_the_first_alone() {
        let same = |one, other| {
            let parse = |value| StandbyNames::parse(value).expect("it is valid");
            parse(one).is_same(&parse(other))
        };
        assert!(same("ANY 1 (a, b)", "any 1 (\"b\", a)"));
        assert!(!same("FIRST 1 (a, b)", "FIRST 1 (b, a)") && same("a, b", "FIRST 1 (a, b)"));
        assert!(!same("ANY 1 (a, b)", "ANY 2 (a, b)") && !same("ANY 1 (a)", "FIRST 1 (a)"));
    }
}
