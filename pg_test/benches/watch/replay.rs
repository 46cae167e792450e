//! A peer that costs next to nothing: answers of a real server, each asked for once and
//! repeated to whoever sends the same bytes. What it serves is the worker's cost, not its own.

use super::fleet::{Peers, Seen};
use pg_test::Server;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The stack of one connection's thread.
const STACK: usize = 128 * 1024;

pub struct Replay {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Replay {
    /// Begins to listen for as long as this process runs.
    pub fn of(server: &Server) -> Replay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let teacher = Arc::new(Mutex::new(Teacher { port: server.port(), ..Teacher::default() }));
        let noted = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (teacher, seen) = (teacher.clone(), noted.clone());
                lock(&seen).sessions += 1;
                // A connection that breaks is the worker's affair.
                let serve = move || drop(serve(stream, &teacher, &seen));
                std::thread::Builder::new().stack_size(STACK).spawn(serve).expect("a thread");
            }
        });
        Replay { port, seen }
    }
}

impl Peers for Replay {
    /// Without TLS, which would have the bytes differ each time.
    fn conninfo(&self) -> String {
        let port = self.port;
        format!(
            "host=127.0.0.1 port={port} user=postgres dbname=app sslmode=disable \
             gssencmode=disable"
        )
    }

    fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut lock(&self.seen))
    }
}

/// Serves one connection to its end.
fn serve(stream: TcpStream, teacher: &Mutex<Teacher>, seen: &Mutex<Seen>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(1024, stream);
    let begin = read_startup(&mut reader)?;
    writer.write_all(&lock(teacher).answer(&begin)?)?;
    let mut last: Option<Instant> = None;
    loop {
        let request = read_request(&mut reader)?;
        lock(seen).questions += 1;
        if is_heartbeat(&request) {
            let now = Instant::now();
            if let Some(last) = last.replace(now) {
                lock(seen).gaps.push(now - last);
            }
        }
        let answer = lock(teacher).answer(&request)?;
        writer.write_all(&answer)?;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it runs the prepared statement `pulse`.
fn is_heartbeat(request: &[u8]) -> bool {
    request.first() == Some(&b'B') && request.windows(7).any(|part| part == b"\0pulse\0")
}

/// A real session, and what it has answered so far.
#[derive(Default)]
struct Teacher {
    port: u16,
    session: Option<TcpStream>,
    known: HashMap<Vec<u8>, Arc<[u8]>>,
}

impl Teacher {
    fn answer(&mut self, request: &[u8]) -> io::Result<Arc<[u8]>> {
        if let Some(answer) = self.known.get(request) {
            return Ok(answer.clone());
        }
        let session = match &mut self.session {
            Some(session) => session,
            None => self.session.insert(TcpStream::connect(("127.0.0.1", self.port))?),
        };
        session.write_all(request)?;
        let answer: Arc<[u8]> = read_until(session, b"Z")?.into();
        self.known.insert(request.to_vec(), answer.clone());
        Ok(answer)
    }
}

/// The first message of a client has no type.
fn read_startup(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message)?;
    read_body(from, &mut message)?;
    Ok(message)
}

/// All messages up to the one after which the client waits: Query or Sync.
fn read_request(from: &mut impl Read) -> io::Result<Vec<u8>> {
    read_until(from, b"QS")
}

/// Messages up to one of these types, as they came.
fn read_until(from: &mut impl Read, last: &[u8]) -> io::Result<Vec<u8>> {
    let mut messages = Vec::new();
    loop {
        let start = messages.len();
        messages.resize(start + 5, 0);
        from.read_exact(&mut messages[start..])?;
        let kind = messages[start];
        read_body(from, &mut messages)?;
        if last.contains(&kind) {
            return Ok(messages);
        }
    }
}

/// Appends what belongs to the length in the last four bytes, which counts itself.
fn read_body(from: &mut impl Read, message: &mut Vec<u8>) -> io::Result<()> {
    let start = message.len();
    let length = message.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    message.resize(start + (length as usize).saturating_sub(4), 0);
    from.read_exact(&mut message[start..])
}
