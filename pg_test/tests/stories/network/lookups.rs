//! A name server that lies: only the node whose name it is about is affected, and that node is
//! right again as soon as the answer is.

use super::World;
use pg_test::lies::{Answer, Lies};
use pg_test::trio::add_node;
use pg_test::watcher::watching;
use pg_test::{Fault, LONG, Proxy, Server, wait_until};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const NAME: &str = "london.invalid";
const HOME: &str = "127.0.0.1";
const ELSEWHERE: &str = "127.0.0.2";
/// Where nobody listens.
const NOBODY: &str = "127.0.0.9";

/// London is watched by its address as `london`, and as `named` by a name that is lied about
/// and leads to a proxy.
struct Named {
    world: World,
    lies: Lies,
    home: Proxy,
}

impl Named {
    fn new(story: &str, first: Answer) -> Named {
        let lies = Lies::new(Path::new(env!("CARGO_TARGET_TMPDIR")), story);
        lies.set_name(NAME, first);
        let world = World::with(watching("paris").lies(&lies), Server::builder("london"));
        let home = Proxy::to(world.london.port());
        add_node(&world.paris, "london", &world.london);
        world.await_all("london", "up");
        world.add_at("named", &format!("host={NAME} port={}", home.port()));
        Named { world, lies, home }
    }

    fn set(&self, answer: Answer) {
        self.lies.set_name(NAME, answer);
    }

    /// Ends the session, so that the next one asks for the name.
    fn set_and_cut(&self, answer: Answer) {
        self.set(answer);
        self.home.cut();
    }

    /// Another proxy on the same port.
    fn proxy_at(&self, address: &str, server: &Server) -> Proxy {
        let address = address.parse().expect("an address");
        Proxy::at(SocketAddr::new(address, self.home.port()), server.port())
    }

    /// Waits until the node is down for this reason, with everybody else as before.
    #[track_caller]
    fn await_down(&self, reason: &str) {
        let why = "SELECT format('%s: %s; %s', health, error, hint) FROM nodes.status
            WHERE node = 'named'";
        wait_until(&format!("named is down: {reason}"), LONG, || {
            let why = self.world.paris.query_one_text("app", why);
            why.starts_with("down: ") && why.contains(reason)
        });
        self.assert_others_go_on();
    }

    #[track_caller]
    fn await_up(&self) {
        self.world.await_all("named", "up");
        self.world.await_heartbeats("named");
        self.assert_others_go_on();
    }

    #[track_caller]
    fn assert_others_go_on(&self) {
        self.world.await_heartbeats("london");
        assert_eq!(self.world.paris.events("london"), ["up"]);
        self.world.assert_undisturbed();
    }
}

#[test]
fn a_name_server_that_answers_slowly_delays_one_node() {
    // Longer than a node may be silent.
    let slowly = Answer::Slowly(Duration::from_secs(2), &[HOME]);
    let named = Named::new("slow", slowly);
    named.await_up();
    for _ in 0..2 {
        let sessions = named.home.accepted();
        named.home.cut();
        named.assert_others_go_on();
        wait_until("another session", LONG, || named.home.accepted() > sessions);
        named.await_up();
    }
    named.set_and_cut(Answer::Addresses(&[HOME]));
    named.await_up();
}

#[test]
fn a_name_server_fails_for_a_time() {
    let named = Named::new("again", Answer::TryAgain);
    for _ in 0..2 {
        named.await_down("Temporary failure in name resolution");
        named.set(Answer::Addresses(&[HOME]));
        named.await_up();
        named.set_and_cut(Answer::TryAgain);
    }
    named.await_down("see to the name service");
    named.set(Answer::Addresses(&[HOME]));
    named.await_up();
}

#[test]
fn a_name_server_falls_silent_for_a_time() {
    let named = Named::new("dumb", Answer::Addresses(&[HOME]));
    named.await_up();
    named.set_and_cut(Answer::Silence);
    named.await_down("");
    named.set(Answer::Addresses(&[HOME]));
    named.await_up();
}

#[test]
fn a_server_moves_to_another_address() {
    let named = Named::new("moved", Answer::Addresses(&[HOME]));
    named.await_up();
    let new = named.proxy_at(ELSEWHERE, &named.world.london);
    named.home.set(Fault::Refuse);
    named.await_down("refused");
    named.set(Answer::Addresses(&[ELSEWHERE]));
    named.await_up();
    assert_ne!(new.accepted(), 0, "it is there that london was found");
    // Back again, and this time the answer is as soon as the connection's end.
    named.home.set(Fault::None);
    let sessions = named.home.accepted();
    named.set(Answer::Addresses(&[HOME]));
    drop(new);
    wait_until("a session at home", LONG, || named.home.accepted() > sessions);
    named.await_up();
}

#[test]
fn a_name_leads_to_nobody_and_to_another_server() {
    let named = Named::new("wrong", Answer::Addresses(&[NOBODY]));
    named.await_down("refused");
    named.set(Answer::Addresses(&[HOME]));
    named.await_up();
    let oslo = Server::builder("oslo").start();
    oslo.create_db("app");
    let _wrong = named.proxy_at(ELSEWHERE, &oslo);
    named.set_and_cut(Answer::Addresses(&[ELSEWHERE]));
    named.world.await_all("named", "wrong_identity");
    named.assert_others_go_on();
    named.set(Answer::Addresses(&[HOME]));
    named.await_up();
    named.set_and_cut(Answer::Addresses(&[NOBODY]));
    named.await_down("refused");
    named.set(Answer::Addresses(&[HOME]));
    named.await_up();
}

/// A dead one refuses, or says nothing for as long as an attempt may take.
#[test]
fn the_first_of_several_addresses_is_dead() {
    let named = Named::new("several", Answer::Addresses(&[NOBODY, HOME]));
    named.await_up();
    let dead = named.proxy_at(ELSEWHERE, &named.world.london);
    dead.set(Fault::BlackHole);
    named.set_and_cut(Answer::Addresses(&[NOBODY, ELSEWHERE, HOME]));
    let sessions = named.home.accepted();
    wait_until("a session at the last of them", LONG, || named.home.accepted() > sessions);
    named.await_up();
    named.set_and_cut(Answer::Addresses(&[ELSEWHERE, NOBODY]));
    named.await_down("");
    dead.set(Fault::None);
    named.await_up();
}

#[test]
fn a_name_that_does_not_resolve_delays_nobody() {
    let world = World::new();
    add_node(&world.paris, "london", &world.london);
    world.add_at("nowhere", "host=does-not-exist.invalid port=5432");
    world.await_all("nowhere", "down");
    world.await_all("london", "up");
    let late = "SELECT bool_and(last_seen > now() - interval '5s')::text FROM nodes.status
        WHERE node IN ('paris', 'london')";
    assert_eq!(world.paris.query_one_text("app", late), "true");
    world.await_heartbeats("london");
    assert_eq!(world.paris.events("london"), ["up"]);
    world.assert_undisturbed();
}

/// Look-ups without an end, as with a name server that is down: each in a thread, and not one
/// more for asking again.
#[test]
fn a_name_server_that_does_not_answer_delays_nobody() {
    let lies = Lies::new(Path::new(env!("CARGO_TARGET_TMPDIR")), "silent");
    let mut world = World::with(watching("paris").lies(&lies), Server::builder("london"));
    add_node(&world.paris, "london", &world.london);
    for n in 0..3 {
        lies.set_name(&format!("silent{n}.invalid"), Answer::Silence);
        world.add_at(&format!("silent {n}"), &format!("host=silent{n}.invalid port=5432"));
    }
    world.await_all("silent %", "down");
    world.await_all("london", "up");
    world.await_heartbeats("london");
    let tasks = || fs::read_dir(format!("/proc/{}/task", world.worker)).expect("it runs").count();
    assert_eq!(tasks(), 4, "a thread for each name");
    for n in 0..3 {
        world.paris.sql("app", &format!("SELECT nodes.remove_node('silent {n}')"));
        world.add_at(&format!("silent {n}"), &format!("host=silent{n}.invalid port=5433"));
    }
    world.await_all("silent %", "down");
    assert_eq!(tasks(), 4, "asking again takes no more threads");
    assert_eq!(world.paris.events("london"), ["up"]);
    world.assert_undisturbed();
    let begun = Instant::now();
    world.paris.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "the shutdown took {:?}", begun.elapsed());
}
