//! Every error that pg_nodes raises by itself, with its SQLSTATE, detail and hint. Messages
//! follow Postgres' style: lower case, no full stop; details and hints are sentences.

mod hints;

use nodes_plan::name::NameError;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("node \"{name}\" does not exist")]
    UnknownNode { name: String, known: Vec<String> },
    #[error("link \"{name}\" does not exist")]
    UnknownLink { name: String, known: Vec<String> },
    #[error("there is no node or link \"{name}\"")]
    UnknownName { name: String, known: Vec<String> },
    #[error("node \"{name}\" already exists")]
    DuplicateNode { name: String, conninfo: Option<String> },
    #[error("link \"{name}\" already exists")]
    DuplicateLink { name: String, link: Option<String> },
    #[error("\"{name}\" cannot be a name")]
    BadName { name: String, why: NameError },
    #[error("\"{0}\" cannot be a table's name")]
    BadTableName(String),
    #[error("invalid conninfo of node \"{node}\"")]
    BadConninfo { node: String, why: String, hint: &'static str },
    #[error("option \"{option}\" may be used only by superusers")]
    ForbiddenOption { option: String },
    #[error("a role that is not a superuser must give a password for node \"{0}\"")]
    PasswordMissing(String),
    #[error("invalid password for node \"{0}\"")]
    BadPassword(String),
    #[error("node \"{0}\" did not ask for the password")]
    PasswordUnused(String),
    #[error("a connection pooler in front of node \"{0}\" keeps no sessions")]
    NoSessions(String),
    #[error("another server answers than node \"{node}\"")]
    WrongIdentity { node: String, expected: String, found: String },
    #[error("only a superuser may take the password of node \"{from}\" to node \"{to}\"")]
    PasswordOfOthers { from: String, to: String, registrant: String },
    #[error("node \"{0}\" cannot be linked to itself")]
    SelfLink(String),
    #[error("node \"{0}\" is already a standby")]
    AlreadyStandby(String, String),
    #[error("nodes \"{publisher}\" and \"{subscriber}\" belong to one group")]
    SameGroup { publisher: String, subscriber: String, links: Vec<String> },
    #[error("standby \"{standby}\" would follow itself")]
    StandbyCycle { standby: String, chain: Vec<String> },
    #[error("node \"{0}\" is being removed")]
    NodeRemoving(String),
    #[error("node \"{name}\" still has links")]
    NodeInUse { name: String, links: Vec<String> },
    #[error("option \"{option}\" is not known")]
    UnknownOption { option: String, known: Vec<&'static str> },
    #[error("invalid value for option \"{option}\"")]
    BadOption { option: String, why: String },
    #[error("option \"{0}\" belongs to the node, not to the link")]
    OptionOfNode(String),
    #[error("a {kind} link has no option \"{option}\"")]
    OptionOfOtherKind { kind: &'static str, option: &'static str, known: Vec<&'static str> },
    #[error("only subscriptions can be paused")]
    CannotPause(&'static str),
    #[error("only subscriptions can be copied anew")]
    CannotResync(&'static str),
    #[error("link \"{0}\" is paused")]
    ResyncOfPaused(String),
    #[error("schema \"{schema}\" exists on this server and holds other tables")]
    SchemaTaken { schema: String, tables: String },
    #[error("schema \"{schema}\" on node \"{node}\" already belongs to link \"{link}\"")]
    SchemaLinked { schema: String, node: String, link: String, from: String },
    #[error("this server is not registered as a node")]
    NotRegistered { tried: Vec<String> },
    #[error("this registry belongs to another server")]
    Passive { made_on: String, here: String },
    #[error("this registry belongs to another database")]
    PassiveCopy,
    #[error("there is no registry yet")]
    NoRegistry,
    #[error("extension \"pg_nodes\" does not exist")]
    Dropped,
    #[error("{0} is for superusers")]
    SuperuserOnly(&'static str),
    #[error("{0} cannot run inside a transaction block")]
    InTransactionBlock(&'static str),
    #[error("this server is superseded and takes no writes")]
    Superseded(String),
    #[error("cannot execute {0} during recovery")]
    InRecovery(&'static str),
    #[error("{links} of {total} links could not be made right")]
    ApplyFailed { lines: Vec<String>, links: usize, total: usize, sqlstate: Option<String> },
    #[error("something is left that nodes.teardown() could not remove")]
    TeardownUnfinished { left: Vec<String>, reasons: Vec<String> },
    #[error("timed out waiting for {call} of {holder}")]
    Busy { call: &'static str, holder: String },
    #[error("the plan was not empty after {0} rounds")]
    NoConvergence(usize),
    #[error("timed out waiting for {0}")]
    Timeout(String),
    #[error("{}", .0.message)]
    Peer(#[from] crate::libpq::error::Error),
    #[error("{context}: {source}")]
    Json { context: &'static str, source: serde_json::Error },
    #[error("{message}")]
    Local { code: PgSqlErrorCode, message: String, detail: Option<String> },
    #[error("{message}")]
    Refused { code: PgSqlErrorCode, message: String, detail: Option<String>, hint: &'static str },
    #[error("could not read the registry: {0}")]
    Spi(#[from] pgrx::spi::Error),
}

impl Error {
    fn code(&self) -> PgSqlErrorCode {
        use PgSqlErrorCode as C;
        match self {
            Error::UnknownNode { .. }
            | Error::UnknownLink { .. }
            | Error::UnknownName { .. }
            | Error::Dropped => C::ERRCODE_UNDEFINED_OBJECT,
            Error::DuplicateNode { .. }
            | Error::DuplicateLink { .. }
            | Error::AlreadyStandby(..)
            | Error::SchemaTaken { .. }
            | Error::SchemaLinked { .. } => C::ERRCODE_DUPLICATE_OBJECT,
            Error::BadName { .. } | Error::BadTableName(_) => C::ERRCODE_INVALID_NAME,
            Error::BadConninfo { .. }
            | Error::BadPassword(_)
            | Error::SelfLink(_)
            | Error::SameGroup { .. }
            | Error::StandbyCycle { .. }
            | Error::UnknownOption { .. }
            | Error::BadOption { .. }
            | Error::OptionOfNode(_)
            | Error::OptionOfOtherKind { .. } => C::ERRCODE_INVALID_PARAMETER_VALUE,
            Error::ForbiddenOption { .. }
            | Error::PasswordOfOthers { .. }
            | Error::SuperuserOnly(_) => C::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Error::PasswordMissing(_) | Error::PasswordUnused(_) => {
                C::ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED
            }
            Error::WrongIdentity { .. }
            | Error::NodeRemoving(_)
            | Error::ResyncOfPaused(_)
            | Error::NodeInUse { .. }
            | Error::NotRegistered { .. }
            | Error::Passive { .. }
            | Error::PassiveCopy
            | Error::NoRegistry
            | Error::TeardownUnfinished { .. }
            | Error::NoConvergence(_) => C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Error::Busy { .. } => C::ERRCODE_OBJECT_IN_USE,
            Error::CannotPause(_) | Error::CannotResync(_) | Error::NoSessions(_) => {
                C::ERRCODE_FEATURE_NOT_SUPPORTED
            }
            Error::InTransactionBlock(_) => C::ERRCODE_ACTIVE_SQL_TRANSACTION,
            Error::Superseded(_) | Error::InRecovery(_) => C::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            Error::ApplyFailed { sqlstate, .. } => code_of(sqlstate.as_deref()),
            Error::Timeout(_) => C::ERRCODE_QUERY_CANCELED,
            Error::Peer(error) => code_of(error.sqlstate.as_deref()),
            Error::Local { code, .. } | Error::Refused { code, .. } => *code,
            Error::Json { .. } | Error::Spi(_) => C::ERRCODE_INTERNAL_ERROR,
        }
    }

    /// The code in its five characters.
    pub fn sqlstate(&self) -> String {
        let code = self.code() as i32;
        let character = |i: i32| char::from(b'0' + ((code >> (6 * i)) & 0x3f) as u8);
        (0..5).map(character).collect()
    }

    fn detail(&self) -> Option<String> {
        match self {
            Error::UnknownNode { known, .. } => Some(known_names("nodes", known)),
            Error::UnknownLink { known, .. } => Some(known_names("links", known)),
            Error::UnknownName { known, .. } => Some(known_names("nodes and links", known)),
            Error::DuplicateNode { conninfo: Some(conninfo), .. } => {
                Some(format!("It is reached by \"{conninfo}\"."))
            }
            Error::DuplicateLink { link: Some(link), .. } => Some(format!("It is {link}.")),
            Error::DuplicateNode { conninfo: None, .. }
            | Error::DuplicateLink { link: None, .. } => {
                Some("Another session has just made it.".into())
            }
            Error::BadName { why, .. } => Some(sentence(&why.to_string())),
            Error::Dropped => Some("Another session has just dropped it.".into()),
            Error::SuperuserOnly(_) => {
                Some("It leaves on a server what nobody will remove any more.".into())
            }
            Error::SelfLink(_) => Some("It would be both ends of the link.".into()),
            Error::SameGroup { links, .. } => {
                Some(format!("Standby links connect them: {}.", links.join(", ")))
            }
            Error::SchemaLinked { from, .. } => {
                Some(format!("It shows a schema of node \"{from}\"."))
            }
            Error::BadConninfo { why, .. } | Error::BadOption { why, .. } => Some(why.clone()),
            Error::WrongIdentity { expected, found, .. } => {
                Some(format!("Its system identifier is {found}, not {expected}."))
            }
            Error::NoSessions(_) => {
                Some("Each transaction is given whatever session of the server is free.".into())
            }
            Error::PasswordOfOthers { from, to, registrant } => Some(format!(
                "The address of node \"{to}\" is that of role \"{registrant}\", which is not a \
                 superuser; node \"{from}\" was not registered by the caller."
            )),
            Error::BadPassword(_) => {
                Some("It contains a control character, such as the end of a line.".into())
            }
            Error::AlreadyStandby(_, link) => Some(format!("Link \"{link}\" says so.")),
            Error::CannotPause(kind) | Error::CannotResync(kind) => {
                Some(format!("This is a {kind} link."))
            }
            Error::StandbyCycle { chain, .. } => Some(format!("{}.", chain.join(" follows "))),
            Error::NodeInUse { links, .. } => Some(format!("Links: {}.", links.join(", "))),
            Error::SchemaTaken { tables, .. } => Some(format!("Among them: {tables}.")),
            Error::NotRegistered { tried } => Some(format!("Asked: {}.", tried.join("; "))),
            Error::PassiveCopy => {
                Some("This database is a copy of the one in which the registry was made.".into())
            }
            Error::Passive { made_on, here } => Some(format!(
                "It was made on the server with system identifier {made_on}, this one is {here}."
            )),
            Error::ApplyFailed { lines, .. } => Some(lines.join("\n")),
            Error::TeardownUnfinished { left, reasons } => {
                Some(format!("Left: {}.\n{}", left.join(", "), reasons.join("\n")))
            }
            Error::Superseded(successor) => Some(sentence(successor)),
            Error::Peer(error) => error.detail.clone(),
            Error::Local { detail, .. } | Error::Refused { detail, .. } => detail.clone(),
            _ => None,
        }
    }
}

fn known_names(what: &str, known: &[String]) -> String {
    if known.is_empty() {
        format!("There are no {what} yet.")
    } else {
        format!("Known {what}: {}.", known.join(", "))
    }
}

/// A message as a sentence, for a detail.
pub fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

/// The error code of five characters, packed as `MAKE_SQLSTATE` does (elog.h).
fn code_of(sqlstate: Option<&str>) -> PgSqlErrorCode {
    let Some(text) = sqlstate.filter(|text| text.len() == 5) else {
        return PgSqlErrorCode::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
    };
    let packed = text
        .bytes()
        .enumerate()
        .fold(0, |code, (i, byte)| code | (i32::from(byte.wrapping_sub(b'0') & 0x3f) << (6 * i)));
    PgSqlErrorCode::from(packed)
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        let report = ErrorReport::new(error.code(), error.to_string(), "");
        let report = match error.detail() {
            Some(detail) => report.set_detail(detail),
            None => report,
        };
        match error.hint() {
            Some(hint) => report.set_hint(hint),
            None => report,
        }
    }
}
