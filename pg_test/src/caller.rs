//! Statements of one role, and how they end.
use crate::Server;
use postgres::Client;

/// A connection that acts as a role without superuser.
pub struct Caller(pub Client);

impl Server {
    /// Connects to the database `app` and acts as `role`.
    #[track_caller]
    pub fn caller(&self, role: &str) -> Caller {
        let mut client = self.client("app");
        client.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).expect("a role");
        Caller(client)
    }
}

impl Caller {
    /// Fails unless the statement works.
    #[track_caller]
    pub fn allowed(&mut self, sql: &str) {
        if let Some((sqlstate, message)) = self.error(sql) {
            panic!("{sql}: {sqlstate} {message}");
        }
    }

    /// Fails unless the statement ends with this SQLSTATE and a message that has this word.
    #[track_caller]
    pub fn refused(&mut self, sql: &str, sqlstate: &str, word: &str) {
        match self.error(sql) {
            None => panic!("{sql}: works"),
            Some((found, message)) => {
                assert!(found == sqlstate && message.contains(word), "{sql}: {found} {message}");
            }
        }
    }

    /// The SQLSTATE and the message that a statement ends with, if it fails.
    #[track_caller]
    fn error(&mut self, sql: &str) -> Option<(String, String)> {
        let error = self.0.batch_execute(sql).err()?;
        match error.as_db_error() {
            Some(error) => Some((error.code().code().to_owned(), error.message().to_owned())),
            None => panic!("{sql}: {error}"),
        }
    }
}
