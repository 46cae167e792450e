//! The proxy: every fault and every phase, in front of a real server.
use pg_test::tls::Authority;
use pg_test::{Fault, LONG, Phase, Proxy, Server, is_port_free, wait_until};
use postgres::error::SqlState;
use postgres::{Client, NoTls};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Whoever says nothing for so long is silent.
const SILENCE: Duration = Duration::from_millis(300);

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The first byte of one.
const TLS_HANDSHAKE: u8 = 0x16;

fn world() -> (Server, Proxy) {
    let server = Server::builder("one").start();
    let proxy = Proxy::to(server.port());
    (server, proxy)
}

fn try_client(port: u16) -> Result<Client, postgres::Error> {
    let mut config = postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").password("wrong").dbname("postgres");
    config.connect(NoTls)
}

/// A connection through the proxy.
fn client(proxy: &Proxy) -> Client {
    let port = proxy.port();
    in_background(move || try_client(port)).answer().expect("a connection")
}

fn answer_of(mut client: Client) -> Result<i32, postgres::Error> {
    client.query_one("SELECT 7", &[]).map(|row| row.get(0))
}

/// Something that may never end, and must not stop its test when it does not.
struct Background<T>(Receiver<T>);

fn in_background<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Background<T> {
    let (result, answer) = mpsc::channel();
    // A test that has failed does not listen any more.
    std::thread::spawn(move || result.send(call()).ok());
    Background(answer)
}

impl<T> Background<T> {
    fn answer(&self) -> T {
        self.0.recv_timeout(LONG).expect("an answer in time")
    }

    fn is_silent(&self) -> bool {
        self.0.recv_timeout(SILENCE).is_err()
    }
}

/// A client that sees every byte.
struct Wire(TcpStream);

impl Wire {
    fn connect(proxy: &Proxy) -> Wire {
        Wire(connect(proxy, LONG).expect("a connection"))
    }

    /// A session that is ready for its first query.
    fn session(proxy: &Proxy) -> Wire {
        let mut wire = Wire::connect(proxy);
        wire.start_up();
        wire.read_until(b'Z');
        wire
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("somebody who reads");
    }

    fn start_up(&mut self) {
        let packet = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        self.send(&[&length(packet), packet.as_slice()].concat());
    }

    fn query(&mut self, query: &str) {
        let text = format!("{query}\0");
        self.send(&[b"Q", length(text.as_bytes()).as_slice(), text.as_bytes()].concat());
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// Type and body.
    fn message(&mut self) -> (u8, Vec<u8>) {
        let (kind, length) = self.header();
        (kind, self.read(length))
    }

    /// Type, and length of the body.
    fn header(&mut self) -> (u8, usize) {
        let header = self.read(5);
        let length = u32::from_be_bytes(header[1..].try_into().expect("four bytes"));
        (header[0], length as usize - 4)
    }

    fn read_until(&mut self, last: u8) {
        while self.message().0 != last {}
    }

    /// What still comes, and how it ends.
    fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes).map(|_| ());
        (bytes, end)
    }

    /// Whether a FIN is the next to come.
    fn is_closed(&mut self) -> bool {
        let (bytes, end) = self.rest();
        bytes.is_empty() && end.is_ok()
    }

    /// Whether a RST is.
    fn is_reset(&mut self) -> bool {
        let (bytes, end) = self.rest();
        bytes.is_empty() && end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
    }

    fn rest_until_silence(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !self.is_silent() {
            bytes.extend(self.read(1));
        }
        bytes
    }

    fn is_silent(&self) -> bool {
        self.0.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let result = self.0.peek(&mut [0]);
        self.0.set_read_timeout(Some(LONG)).expect("a timeout");
        result.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }
}

fn length(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len() + 4).expect("a short body").to_be_bytes()
}

fn connect(proxy: &Proxy, timeout: Duration) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(LONG))?;
    Ok(stream)
}

#[test]
fn without_a_fault_it_is_not_there() {
    let (mut server, proxy) = world();
    let mut one = client(&proxy);
    let text = "SELECT string_agg(i::text, ',') FROM generate_series(1, 500000) i";
    let through: String = one.query_one(text, &[]).expect("a row").get(0);
    assert_eq!(through, server.query_one_text("postgres", text));

    let cancel = one.cancel_token();
    let sleeping = in_background(move || one.simple_query("SELECT pg_sleep(600)").map(|_| ()));
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("it sleeps", LONG, || server.query_one_text("postgres", asleep) == "1");
    cancel.cancel_query(NoTls).expect("a connection to cancel");
    let error = sleeping.answer().expect_err("a cancelled query");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(proxy.accepted(), 2);

    let mut two = Wire::session(&proxy);
    server.crash();
    let _ = two.rest();
    assert!(try_client(proxy.port()).is_err());
    server.start_again();
    assert_eq!(answer_of(client(&proxy)).expect("an answer"), 7);
    assert_eq!(proxy.accepted(), 5);
}

#[test]
fn dropped_it_closes_everything() {
    let (server, proxy) = world();
    let port = proxy.port();
    let mut wire = Wire::session(&proxy);
    drop(proxy);
    assert!(wire.is_closed());
    assert!(is_port_free(port));
    wait_until("the server has noticed", LONG, || sessions(&server) == "0");
}

/// How many clients the server knows of, besides us.
fn sessions(server: &Server) -> String {
    server.query_one_text(
        "postgres",
        "SELECT count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
}

#[test]
fn a_cut_closes_all_connections_once() {
    let (server, proxy) = world();
    let (mut one, two) = (Wire::session(&proxy), client(&proxy));
    assert_eq!(sessions(&server), "2");
    proxy.cut();
    assert!(one.is_closed());
    assert!(answer_of(two).expect_err("a closed connection").is_closed());
    wait_until("the server has noticed", LONG, || sessions(&server) == "0");
    assert_eq!(answer_of(client(&proxy)).expect("an answer"), 7);

    // It is a FIN, not a RST, for those too whose bytes lie unread, and the fault stays.
    let mut three = Wire::session(&proxy);
    proxy.set(Fault::HalfOpen);
    three.query("SELECT 7");
    proxy.cut();
    assert!(three.is_closed());
    let mut four = Wire::connect(&proxy);
    four.start_up();
    assert!(four.is_silent());
}

#[test]
fn a_delay_costs_time_and_no_throughput() {
    let (_server, proxy) = world();
    let mut client = client(&proxy);
    let delay = Duration::from_millis(250);
    proxy.set(Fault::Delay(delay));
    let start = Instant::now();
    let answer = in_background(move || {
        client.simple_query("SELECT repeat('x', 20000000)").expect("an answer");
    });
    answer.answer();
    assert!(start.elapsed() >= 2 * delay);
    // With 64 kB on the road at a time it would take 76 s.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());

    let mut wire = Wire::connect(&proxy);
    let start = Instant::now();
    wire.start_up();
    wire.read_until(b'Z');
    assert!(start.elapsed() >= 2 * delay);
    proxy.set(Fault::Delay(LONG * 60));
    wire.query("SELECT 7");
    assert!(wire.is_silent());
    proxy.set(Fault::None);
    wire.read_until(b'Z');
}

#[test]
fn a_throttle_lets_so_many_bytes_pass_per_second() {
    let (_server, proxy) = world();
    let mut wire = Wire::session(&proxy);
    proxy.set(Fault::Throttle(100_000));
    let start = Instant::now();
    wire.query("SELECT repeat('x', 100000)");
    wire.read_until(b'Z');
    // The first slice, a fiftieth, comes at once.
    assert!(start.elapsed() >= Duration::from_millis(980), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    proxy.set(Fault::Throttle(1000));
    let start = Instant::now();
    wire.query("SELECT repeat('x', 1000000)");
    assert_eq!(wire.message().0, b'T');
    proxy.set(Fault::None);
    wire.read_until(b'Z');
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn a_cut_after_n_bytes_lets_exactly_those_pass() {
    let (_server, proxy) = world();
    let mut existing = Wire::session(&proxy);
    proxy.set(Fault::CutAfter(1234));
    assert!(existing.is_silent());
    existing.query("SELECT repeat('x', 100000)");
    let (bytes, end) = existing.rest();
    assert_eq!(bytes.len(), 1234);
    assert!(end.is_ok());

    proxy.set(Fault::CutAfter(10));
    let mut new = Wire::connect(&proxy);
    new.start_up();
    let (bytes, end) = new.rest();
    assert_eq!((bytes.len(), bytes[0]), (10, b'R'));
    assert!(end.is_ok());

    proxy.set(Fault::CutAfter(1_000_000));
    assert_eq!(answer_of(client(&proxy)).expect("an answer"), 7);
}

#[test]
fn a_reset_is_a_reset() {
    let (server, proxy) = world();
    let mut existing = Wire::session(&proxy);
    proxy.set(Fault::Reset);
    assert!(existing.is_reset());
    // The RST may come before connect() has looked at the answer.
    match connect(&proxy, LONG) {
        Ok(stream) => assert!(Wire(stream).is_reset()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    let error = try_client(proxy.port()).err().expect("a reset connection");
    assert_eq!(error.code(), None);
    assert_eq!(proxy.accepted(), 3);
    wait_until("the server has noticed", LONG, || sessions(&server) == "0");
    proxy.set(Fault::None);
    assert_eq!(answer_of(client(&proxy)).expect("an answer"), 7);
}

#[test]
fn a_half_open_connection_goes_on_when_healed() {
    let (server, proxy) = world();
    let existing = client(&proxy);
    let mut gone = Wire::session(&proxy);
    proxy.set(Fault::HalfOpen);
    let existing = in_background(move || answer_of(existing));
    let port = proxy.port();
    let new = in_background(move || try_client(port).and_then(answer_of));
    wait_until("the new one is accepted", LONG, || proxy.accepted() == 3);
    gone.query("CREATE TABLE t ()");
    drop(gone);
    assert!(existing.is_silent() && new.is_silent());
    assert_eq!(sessions(&server), "2");

    proxy.set(Fault::None);
    assert_eq!(existing.answer().expect("an answer"), 7);
    assert_eq!(new.answer().expect("an answer"), 7);
    wait_until("the query that was held back has run", LONG, || {
        server.query_one_text("postgres", "SELECT to_regclass('t')") == "t"
    });
    wait_until("the end that was held back, too", LONG, || sessions(&server) == "0");
}

#[test]
fn a_black_hole_answers_no_syn() {
    let (_server, proxy) = world();
    let existing = client(&proxy);
    for _ in 0..2 {
        proxy.set(Fault::BlackHole);
        for _ in 0..5 {
            let error = connect(&proxy, SILENCE).expect_err("a connection that hangs");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
    }
    let existing = in_background(move || answer_of(existing));
    let port = proxy.port();
    let new = in_background(move || try_client(port).and_then(answer_of));
    assert!(existing.is_silent() && new.is_silent());
    assert_eq!(proxy.accepted(), 1);

    proxy.set(Fault::None);
    assert_eq!(existing.answer().expect("an answer"), 7);
    assert_eq!(answer_of(client(&proxy)).expect("an answer"), 7);
    // This one waits until its kernel asks again.
    assert_eq!(new.answer().expect("an answer"), 7);
    assert_eq!(proxy.accepted(), 3);
}

#[test]
fn where_nobody_listens_connections_are_refused() {
    let (server, proxy) = world();
    let mut existing = Wire::session(&proxy);
    for fault in [Fault::Refuse, Fault::Refuse, Fault::BlackHole, Fault::Refuse] {
        proxy.set(fault);
        let expected = match fault {
            Fault::Refuse => ErrorKind::ConnectionRefused,
            _ => ErrorKind::TimedOut,
        };
        let error = connect(&proxy, SILENCE).expect_err("nobody");
        assert_eq!(error.kind(), expected, "{fault:?}");
    }
    assert!(existing.is_closed());
    wait_until("the server has noticed", LONG, || sessions(&server) == "0");
    assert_eq!(proxy.accepted(), 1);
    proxy.set(Fault::None);
    assert_eq!(answer_of(client(&proxy)).expect("an answer"), 7);
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn garbage_is_no_protocol_and_the_same_for_a_seed() {
    let (_server, proxy) = world();
    let existing = client(&proxy);
    let answer = |seed| {
        proxy.set(Fault::Garbage(seed));
        let mut wire = Wire::connect(&proxy);
        wire.start_up();
        wire.read(100)
    };
    let one = answer(1);
    assert!(one.iter().all(|&byte| byte >= 0x80));
    assert_eq!(answer(1), one);
    assert_ne!(answer(2), one);

    let port = proxy.port();
    for answer in [
        in_background(move || answer_of(existing)),
        in_background(move || try_client(port).and_then(answer_of)),
    ] {
        assert_eq!(answer.answer().expect_err("garbage").code(), None);
    }
    let mut wire = Wire::connect(&proxy);
    wire.send(&SSL_REQUEST);
    assert!(wire.read(1)[0] >= 0x80);
}

#[test]
fn a_drip_is_one_byte_at_a_time() {
    let (_server, proxy) = world();
    let mut wire = Wire::session(&proxy);
    let pause = Duration::from_millis(10);
    proxy.set(Fault::Drip(pause));
    let start = Instant::now();
    wire.query("SELECT 7");
    let mut buffer = [0; 100];
    assert_eq!(wire.0.read(&mut buffer).expect("a byte"), 1);
    wire.read(49);
    assert!(start.elapsed() >= pause * 49, "{:?}", start.elapsed());
    assert!(start.elapsed() < pause * 49 * 10, "{:?}", start.elapsed());
    proxy.set(Fault::Drip(LONG));
    wire.rest_until_silence();
    proxy.set(Fault::None);
    assert!(wire.rest_until_silence().ends_with(b"Z\0\0\0\x05I"));
}

#[test]
fn at_the_phase_of_tls_the_request_was_seen() {
    if !Server::supports_tls() {
        return;
    }
    let server = Server::builder("one").tls(&Authority::new(), "one.test").start();
    let proxy = Proxy::to(server.port());
    let psql = |mode: &str| {
        let mut psql = server.client_program("psql", "postgres");
        psql.args(["-XAt", "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "-d"])
            .arg(format!("host=127.0.0.1 port={} user=postgres sslmode={mode}", proxy.port()))
            // No certificates of whoever runs the tests.
            .env("HOME", "/nonexistent");
        let output = psql.output().expect("psql runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(psql("require"), "t");
    proxy.set_at(Phase::Authentication, Fault::Reset);
    assert_eq!(psql("require"), "t");
    for fault in [Fault::Reset, Fault::CutAfter(0), Fault::CutAfter(100), Fault::Garbage(1)] {
        proxy.set_at(Phase::Tls, fault);
        assert_eq!(psql("require"), "", "{fault:?}");
        assert_eq!(psql("disable"), "f", "{fault:?}");
    }
}

#[test]
fn at_the_phase_of_tls_the_server_has_not_answered() {
    let (_server, proxy) = world();
    let mut existing = Wire::session(&proxy);
    let mut asked = Wire::connect(&proxy);
    asked.send(&SSL_REQUEST);
    asked.read(1);
    proxy.set_at(Phase::Tls, Fault::HalfOpen);
    let mut wire = Wire::connect(&proxy);
    for byte in SSL_REQUEST {
        wire.send(&[byte]);
    }
    asked.start_up();
    assert!(wire.is_silent() && asked.is_silent());
    existing.query("SELECT 7");
    existing.read_until(b'Z');
    proxy.set_at(Phase::Tls, Fault::CutAfter(1));
    assert_eq!(wire.rest().0.len(), 1);

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let proxy = Proxy::to(listener.local_addr().expect("an address").port());
    proxy.set_at(Phase::Tls, Fault::HalfOpen);
    // Since version 17 a client may begin with the handshake itself.
    for request in [&SSL_REQUEST[..], &[TLS_HANDSHAKE]] {
        let mut wire = Wire::connect(&proxy);
        let (server, _) = listener.accept().expect("the proxy's connection");
        wire.send(request);
        assert!(Wire(server).is_silent());
    }
}

#[test]
fn at_the_phase_of_authentication_the_startup_packet_has_passed() {
    let server = Server::builder("one").password("secret").start();
    let proxy = Proxy::to(server.port());
    proxy.set_at(Phase::Authentication, Fault::HalfOpen);
    let mut wire = Wire::connect(&proxy);
    wire.send(&SSL_REQUEST);
    assert_eq!(wire.read(1), b"N");
    wire.start_up();
    assert!(wire.is_silent());
    proxy.set(Fault::None);
    assert_eq!(wire.message().0, b'R');

    // Waiting for the password, it is beyond the phase.
    proxy.set_at(Phase::Authentication, Fault::Reset);
    assert!(wire.is_reset());
    let error = try_client(proxy.port()).err().expect("a reset connection");
    assert_eq!(error.code(), None);
    proxy.set(Fault::None);
    let error = try_client(proxy.port()).err().expect("a wrong password");
    assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD));
}

#[test]
fn at_the_phase_of_the_first_query_the_session_is_ready() {
    let (_server, proxy) = world();
    proxy.set_at(Phase::FirstQuery, Fault::HalfOpen);
    let (one, mut two) = (client(&proxy), Wire::session(&proxy));
    let answer = in_background(move || answer_of(one));
    assert!(answer.is_silent());
    proxy.set(Fault::None);
    assert_eq!(answer.answer().expect("an answer"), 7);

    // At this phase nobody is kept from connecting.
    for fault in [Fault::BlackHole, Fault::Refuse] {
        proxy.set_at(Phase::FirstQuery, fault);
        client(&proxy);
    }
    assert!(two.is_closed());
    assert!(Wire::session(&proxy).is_closed());
}

#[test]
fn at_the_steady_state_three_queries_could_be_sent() {
    let (_server, proxy) = world();
    let mut old = Wire::session(&proxy);
    for _ in 0..2 {
        old.query("SELECT 7");
        old.read_until(b'Z');
    }
    proxy.set_at(Phase::SteadyState, Fault::CutAfter(0));
    assert!(old.is_closed());
    let mut new = Wire::session(&proxy);
    new.query("SELECT 7");
    new.read_until(b'Z');
    assert!(new.is_silent());
    new.query("SELECT 7");
    new.read_until(b'Z');
    assert!(new.is_closed());
}

#[test]
fn in_the_middle_of_a_result_half_of_a_row_has_come() {
    let (_server, proxy) = world();
    let (mut idle, mut wire) = (Wire::session(&proxy), Wire::session(&proxy));
    proxy.set_at(Phase::MidResult, Fault::HalfOpen);
    wire.query("SELECT 7 WHERE false");
    wire.read_until(b'Z');
    wire.query("SELECT repeat('x', 100000)");
    assert_eq!(wire.message().0, b'T');
    // The number of columns, the length of the only one, the text.
    assert_eq!(wire.header(), (b'D', 100_006));
    wire.read(50_003);
    assert!(wire.is_silent());

    // There is such a moment right now.
    proxy.set_at(Phase::MidResult, Fault::CutAfter(3));
    assert_eq!(wire.rest().0.len(), 3);
    idle.query("SELECT '0123456789'");
    let (bytes, end) = idle.rest();
    assert!(end.is_ok());
    // Half of the body, and three bytes more.
    assert!(bytes.ends_with(b"D\0\0\0\x14\0\x01\0\0\0\x0a01234"), "{bytes:?}");

    proxy.set_at(Phase::MidResult, Fault::Garbage(3));
    let error = in_background({
        let client = client(&proxy);
        move || answer_of(client)
    });
    assert_eq!(error.answer().expect_err("garbage").code(), None);
}
