//! Asking a server: through a client library, and through the real psql.
use crate::{Install, LONG, Server, names, user, wait_until};
use postgres::{Client, NoTls};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

/// A statement that never ends must fail its test, with its name and the logs, not stop them all.
/// Questions are to be answered by standbys, too, and sessions to last, whatever a server's
/// defaults are.
pub(crate) const OPTIONS: &str = "-c statement_timeout=180s -c idle_session_timeout=0 \
    -c default_transaction_isolation=read\\ committed";

/// What psql printed, errors and notices in their place among the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Psql {
    pub ok: bool,
    pub output: String,
}

impl fmt::Display for Psql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.output)
    }
}

impl Server {
    /// How other servers reach this one: over TCP, as its superuser.
    pub fn conninfo(&self, db: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={db}", self.port())
    }

    /// A new connection of the superuser.
    #[track_caller]
    pub fn client(&self, db: &str) -> Client {
        self.try_client(db)
            .unwrap_or_else(|error| panic!("cannot connect to {}/{db}: {error}", self.name()))
    }

    /// Like [`Server::client`], for a server that may be down.
    pub fn try_client(&self, db: &str) -> Result<Client, postgres::Error> {
        self.client_config(db).connect(NoTls)
    }

    /// Until the server lets us in, say after a crash.
    #[track_caller]
    pub fn await_up(&self, db: &str) {
        wait_until(&format!("{} is back", self.name()), LONG, || {
            self.try_client(db).is_ok_and(|mut client| client.simple_query("").is_ok())
        });
    }

    /// How the harness connects.
    pub fn client_config(&self, db: &str) -> postgres::Config {
        let mut config = postgres::Config::new();
        config
            .host(&self.own_host())
            .port(self.port())
            .user("postgres")
            .dbname(db)
            .application_name("harness")
            .options(OPTIONS)
            .connect_timeout(crate::LONG);
        config
    }

    /// Runs one or more statements.
    #[track_caller]
    pub fn sql(&self, db: &str, statements: &str) {
        if let Err(error) = self.client(db).batch_execute(statements) {
            panic!("{}/{db}: {statements}\n{}", self.name(), Explained(&error));
        }
    }

    /// The first column of the first row, as text; NULL is the empty text.
    #[track_caller]
    pub fn query_one_text(&self, db: &str, query: &str) -> String {
        let rows = self.query_texts(db, query);
        match rows.into_iter().next() {
            Some(text) => text,
            None => panic!("{}/{db}: no row from {query}", self.name()),
        }
    }

    /// The first column of every row, as text; NULL is the empty text.
    #[track_caller]
    pub fn query_texts(&self, db: &str, query: &str) -> Vec<String> {
        let messages = self.client(db).simple_query(query);
        let messages = messages
            .unwrap_or_else(|error| panic!("{}/{db}: {query}\n{}", self.name(), Explained(&error)));
        messages
            .iter()
            .filter_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => {
                    Some(row.get(0).unwrap_or_default().to_owned())
                }
                _ => None,
            })
            .collect()
    }

    /// Makes a database.
    #[track_caller]
    pub fn create_db(&self, db: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {}", names::ident(db)));
    }

    /// Runs a script through psql, which stops at the first error.
    pub fn psql(&self, db: &str, script: &str) -> Psql {
        self.psql_with(db, &[], script)
    }

    /// Runs a call that fails, and says all of this.
    #[track_caller]
    pub fn refuses(&self, db: &str, call: &str, told: &[&str]) {
        let said = self.psql(db, call);
        assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    }

    /// Like [`Server::psql`], with more options, say `["-At"]`.
    pub fn psql_with(&self, db: &str, options: &[&str], script: &str) -> Psql {
        let mut command = self.psql_command(db);
        command.args(options);
        run_merged(command, script)
    }

    /// Like [`Server::psql`], in the background.
    pub fn psql_in_background(&self, db: &str, script: &str) -> JoinHandle<Psql> {
        let command = self.psql_command(db);
        let script = script.to_owned();
        std::thread::spawn(move || run_merged(command, &script))
    }

    fn psql_command(&self, db: &str) -> Command {
        let mut command = self.client_program("psql", db);
        command.env("PGOPTIONS", OPTIONS).args(["-X", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    /// One of Postgres' client programs, told to connect here as the superuser.
    pub fn client_program(&self, program: &str, db: &str) -> Command {
        let mut command = Command::new(Install::get().program(program));
        user::forget_postgres_settings(&mut command);
        command.arg("-d").arg(format!(
            "host='{}' port={} user=postgres dbname={}",
            self.own_host(),
            self.port(),
            names::conninfo_value(db)
        ));
        command
    }

    /// Ends the recovery of a standby and waits until it is a primary.
    #[track_caller]
    pub fn promote(&self) {
        let promoted = self.query_one_text("postgres", "SELECT pg_promote()");
        assert_eq!(promoted, "t", "{} was not promoted in time", self.name());
    }
}

/// Runs a command on a script, with stdout and stderr through one pipe to keep their order.
fn run_merged(mut command: Command, script: &str) -> Psql {
    let (mut reader, writer) = std::io::pipe().expect("cannot make a pipe");
    command
        .stdin(Stdio::piped())
        .stdout(writer.try_clone().expect("cannot duplicate a pipe"))
        .stderr(writer);
    let mut child = command.spawn().expect("cannot run a client program");
    // Ours is the last copy of the writing end: without it the reader would wait for ever.
    drop(command);
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let script = script.to_owned();
    let feeder = std::thread::spawn(move || {
        // A client that stops at an error leaves the rest unread.
        let _ = stdin.write_all(script.as_bytes());
    });
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("cannot read a pipe");
    feeder.join().expect("feeding never panics");
    Psql {
        ok: child.wait().expect("cannot wait for a client").success(),
        output: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// The server's message with SQLSTATE, detail and hint, which `Display` leaves out.
struct Explained<'a>(&'a postgres::Error);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = self.0.as_db_error() else {
            return write!(f, "{}", self.0);
        };
        write!(f, "{} {}", error.code().code(), error.message())?;
        for part in [error.detail(), error.hint(), error.where_()].into_iter().flatten() {
            write!(f, "\n  {part}")?;
        }
        Ok(())
    }
}
