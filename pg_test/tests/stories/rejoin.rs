//! `nodes.rejoin()`: a primary that was replaced returns as a standby.

use pg_test::adopted::{kill_program, program_runs};
use pg_test::trio::{add_node, apply, plan};
use pg_test::{LONG, Psql, Server, wait_until};
use std::fs;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// Paris and its standby oslo; the registry is on both.
fn pair(settings: &[(&str, &str)]) -> (Server, Server) {
    let builder = |name| {
        let builder = Server::builder(name).conf("full_page_writes", "on");
        settings.iter().fold(builder, |builder, (name, value)| builder.conf(name, value))
    };
    let paris = builder("paris").start();
    paris.create_db("app");
    paris.sql("app", "CREATE EXTENSION pg_nodes; CREATE TABLE orders (id integer PRIMARY KEY)");
    let oslo = paris.clone_standby_with(builder("oslo"));
    for (name, server) in [("paris", &paris), ("oslo", &oslo)] {
        add_node(&paris, name, server);
    }
    paris.sql("app", "SELECT nodes.add_standby('oslo', primary_node => 'paris')");
    apply(&paris);
    paris.sql("app", "INSERT INTO orders VALUES (1)");
    await_orders(&oslo, &["1"]);
    (paris, oslo)
}

fn await_orders(server: &Server, wanted: &[&str]) {
    let orders = "SELECT id FROM orders ORDER BY id";
    wait_until("the orders are there", LONG, || server.query_texts("app", orders) == wanted);
}

/// Paris dies, oslo takes its place, and paris comes back by itself with a write of its own.
fn part(paris: &mut Server, oslo: &Server) {
    paris.crash();
    let said = oslo.psql("app", "CALL nodes.promote('oslo')");
    assert!(said.ok && said.output.contains("all links follow"), "{said}");
    oslo.sql("app", "INSERT INTO orders VALUES (2)");
    paris.start_again();
    paris.sql("app", "INSERT INTO orders VALUES (666)");
}

fn assert_follows(paris: &Server, oslo: &Server) {
    assert_eq!(paris.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "true");
    oslo.sql("app", "INSERT INTO orders VALUES (3)");
    await_orders(paris, &["1", "2", "3"]);
    assert_eq!(plan(oslo), [""; 0], "nothing is left to do");
    let slots = "SELECT format('%s %s', slot_name LIKE 'nodes%', active) FROM pg_replication_slots";
    wait_until("its slot is read", LONG, || oslo.query_texts("app", slots) == ["t t"]);
    assert_eq!(paris.query_texts("app", slots), [""; 0]);
}

/// Has a server read a file of its own.
fn configure(server: &Server) {
    server.write_file("of paris.conf", "work_mem = '7MB'");
    server.append_conf("include 'of paris.conf'");
    server.reload();
}

#[track_caller]
fn assert_configured(server: &Server) {
    assert_eq!(server.query_one_text("app", "SHOW work_mem"), "7MB");
}

#[test]
fn an_old_primary_that_has_diverged_is_rewound() {
    let (mut paris, oslo) = pair(&[("wal_log_hints", "on")]);
    part(&mut paris, &oslo);
    configure(&paris);
    let said = oslo.psql("app", REJOIN);
    let told = ["left timeline 1 at", "is lost", "\"paris\" is a standby of \"oslo\""];
    assert!(said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    assert_follows(&paris, &oslo);
    assert_configured(&paris);
    assert_eq!(beside(&paris), [""; 0]);
    // Again it finds nothing to do, and it can be the primary once more.
    let again = oslo.psql("app", "CALL nodes.rejoin('paris')");
    assert!(again.ok, "{again}");
    let said = paris.psql("app", "CALL nodes.switchover('paris')");
    assert!(said.ok && said.output.contains("\"paris\" is the primary"), "{said}");
}

#[test]
fn what_cannot_be_rewound_is_left_alone() {
    let (mut paris, oslo) = pair(&[NO_REWIND]);
    part(&mut paris, &oslo);
    let said = oslo.psql("app", "CALL nodes.rejoin('rome')");
    assert!(!said.ok && said.output.contains("does not exist"), "{said}");
    let said = oslo.psql("app", "CALL nodes.rejoin('oslo')");
    assert!(!said.ok && said.output.contains("not older than"), "{said}");
    let refused = |call: &str, told: [&str; 3]| {
        let said = oslo.psql("app", call);
        assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
        assert_eq!(oslo.query_texts("app", "SELECT name FROM nodes.link"), [""; 0]);
        assert_eq!((beside(&paris), slots(&oslo)), (vec![], vec![]));
    };
    let told = [
        "cannot be rewound",
        "RJ03",
        "HINT:  Nothing was changed. Correct the cause, or pass copy",
    ];
    refused("CALL nodes.rejoin('paris', copy => false)", told);
    // It takes no room, and shows as eight terabytes.
    let temporary = oslo.data_dir().join("base/pgsql_tmp");
    fs::create_dir_all(&temporary).expect("a directory");
    let large = temporary.join("pgsql_tmp1.1");
    let made = fs::File::create(&large).and_then(|file| file.set_len(8 << 40));
    made.expect("a file with a hole");
    refused(REJOIN, ["the clone needs 8192 GB", "are free", "Make room there, and"]);
    fs::remove_file(large).expect("it is there");
    let attic = "SET allow_in_place_tablespaces = on; CREATE TABLESPACE attic LOCATION ''";
    assert!(oslo.psql("app", attic).ok);
    refused(REJOIN, ["can neither be rewound nor copied", "RJ03", "RJ06"]);
    let data = paris.data_dir();
    let by_hand = format!("--pgdata='{}' --dbname='host=", data.display());
    refused(
        REJOIN,
        ["in its data directory, empty that, run, as", "/pg_basebackup' --write", &by_hand],
    );
    paris.stop();
    let said = oslo.psql("app", REJOIN);
    assert!(!said.ok && said.output.contains("Start that server"), "{said}");
}

const REJOIN: &str = "CALL nodes.rejoin('paris')";

/// `pg_rewind` wants `full_page_writes`. The version's own initdb may turn checksums on, so that
/// `wal_log_hints` makes no difference.
const NO_REWIND: (&str, &str) = ("full_page_writes", "off");

/// What is beside the data directory and named for it.
fn beside(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(server.data_dir().parent().expect("a parent")).expect("files");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("data.")).collect()
}

fn slots(server: &Server) -> Vec<String> {
    server.query_texts("app", "SELECT slot_name FROM pg_replication_slots")
}

#[track_caller]
fn rejoin(oslo: &Server) -> String {
    let said = oslo.psql("app", REJOIN);
    assert!(said.ok && said.output.contains("\"paris\" is a standby of \"oslo\""), "{said}");
    said.output
}

#[test]
fn an_old_primary_that_cannot_be_rewound_is_copied_anew() {
    let (mut paris, oslo) = pair(&[NO_REWIND]);
    part(&mut paris, &oslo);
    configure(&paris);
    let said = rejoin(&oslo);
    let told = ["is lost", "RJ03", "is copied anew", "paris: copied", "returns on the copy"];
    assert!(told.iter().all(|text| said.contains(text)), "{said}");
    assert_follows(&paris, &oslo);
    assert_eq!(beside(&paris), [""; 0]);
    assert!(!paris.data_dir().join("pg_nodes.clone").exists(), "it is a server of its own");
    assert_configured(&paris);
    let again = rejoin(&oslo);
    assert!(!again.contains("copied"), "{again}");
    let said = paris.psql("app", "CALL nodes.switchover('paris')");
    assert!(said.ok && said.output.contains("\"paris\" is the primary"), "{said}");
}

/// That the WAL since the last common checkpoint is gone is what only `pg_rewind` finds.
/// A server that something else starts and stops is rewound by a person, with the command that the
/// call prints.
#[test]
fn what_is_printed_can_be_run() {
    let (mut paris, oslo) = pair(&[("wal_log_hints", "on")]);
    part(&mut paris, &oslo);
    paris.append_conf("pg_nodes.restart_command = 'false'");
    paris.reload();
    let shown = "SHOW pg_nodes.restart_command";
    wait_until("it is read", LONG, || paris.query_one_text("app", shown) == "false");
    let said = oslo.psql("app", REJOIN);
    let told = ["can neither be rewound nor copied", "RJ04", "RJ05", "/pg_basebackup' --write"];
    assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    let (_, command) = said.output.split_once("operating system user, ").expect("a command");
    let (command, _) = command.split_once(", put them back").expect("what comes next");
    assert!(command.contains("/pg_rewind' --write-recovery-conf --target-pgdata='"), "{command}");
    paris.stop();
    let configuration = paris.data_dir().join("postgresql.conf");
    let saved = fs::read(&configuration).expect("it has one");
    let run = pg_test::user::command("sh").arg("-c").arg(command).output().expect("a shell");
    assert!(run.status.success(), "{command}: {run:?}");
    fs::write(&configuration, saved).expect("it is there");
    paris.start_again();
    rejoin(&oslo);
    assert_follows(&paris, &oslo);
}

#[test]
fn what_pg_rewind_gives_up_is_copied_anew() {
    let (mut paris, oslo) = pair(&[("wal_log_hints", "on"), ("wal_recycle", "off")]);
    part(&mut paris, &oslo);
    paris.sql("app", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    for _ in 0..3 {
        paris.sql("app", "INSERT INTO orders SELECT max(id) + 1 FROM orders");
        paris.sql("app", "SELECT pg_switch_wal()");
        paris.sql("app", "CHECKPOINT");
    }
    let said = oslo.psql("app", "CALL nodes.rejoin('paris', copy => false)");
    let told = ["could not be rewound, and is as it was", "pg_rewind", "or pass copy => true"];
    assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    let said = rejoin(&oslo);
    let told = ["stops, and is rewound", "could not be rewound: ", "returns on the copy"];
    assert!(told.iter().all(|text| said.contains(text)), "{said}");
    assert_follows(&paris, &oslo);
    assert_eq!(beside(&paris), [""; 0]);
}

/// What ends a copy under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Cancel,
    /// `kill -9` of the calling process, after which its server starts anew.
    Kill,
    /// `kill -9` of `pg_basebackup`.
    Program,
    /// `kill -9` of the new primary's postmaster.
    Crash,
    /// That of the server that returns.
    Return,
}

/// Until the copy is complete the server is as it was; a call that lives takes the copy back, and
/// the same call goes on after one that does not.
#[test]
fn a_copy_that_is_interrupted_is_made_by_the_same_call() {
    let (mut paris, mut oslo) = pair(&[NO_REWIND]);
    part(&mut paris, &oslo);
    let program = format!("--pgdata={}.", paris.data_dir().display());
    for end in [End::Cancel, End::Program, End::Kill, End::Crash, End::Return] {
        eprintln!("{end:?}");
        let running = begin_slowly(&oslo);
        let caller = || oslo.query_one_text("app", CALLER);
        match end {
            End::Cancel => oslo.sql("app", &format!("SELECT pg_cancel_backend({})", caller())),
            End::Kill => oslo.kill_backend(caller().parse().expect("a process id")),
            End::Program => assert!(kill_program(&program)),
            End::Crash => {
                oslo.crash();
                oslo.start_again();
            }
            End::Return => {
                paris.crash();
                paris.start_again();
            }
        }
        let said = running.join().expect("psql ran");
        assert!(!said.ok, "{said}");
        oslo.await_up("app");
        wait_until("the program is gone", LONG, || !program_runs(&program));
        assert_eq!(paris.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "false");
        if matches!(end, End::Cancel | End::Program) {
            assert_eq!((beside(&paris), slots(&oslo)), (vec![], vec![]));
        }
    }
    rejoin(&oslo);
    assert_follows(&paris, &oslo);
    assert_eq!(beside(&paris), [""; 0]);
}

/// Runs a slow call in the background until the copy has begun.
fn begin_slowly(oslo: &Server) -> JoinHandle<Psql> {
    let copies = || !oslo.query_texts("app", COPYING).is_empty();
    wait_until("the last copy is gone", LONG, || !copies());
    let running = oslo.psql_in_background("app", "CALL nodes.rejoin('paris', max_rate => '2MB')");
    wait_until("the copy has begun", LONG, || {
        assert!(!running.is_finished(), "it ended early");
        copies()
    });
    running
}

const COPYING: &str = "SELECT phase FROM pg_stat_progress_basebackup WHERE backup_streamed > 0";

const CALLER: &str = "SELECT pid::text FROM pg_stat_activity
    WHERE query LIKE 'CALL nodes.rejoin%' AND pid <> pg_backend_pid()";

/// A copy that is complete is kept, and the server returns on it, however far the call before was:
/// it had not begun to change over, had done so while the server ran on, or the server had stopped
/// and nobody was left to start it.
#[test]
fn a_change_over_that_is_interrupted_is_made_by_the_same_call() {
    for (named, stopped) in [(false, false), (true, false), (true, true)] {
        eprintln!("named {named}, stopped {stopped}");
        let (mut paris, oslo) = pair(&[NO_REWIND]);
        part(&mut paris, &oslo);
        // It cannot be told whom to follow.
        let taken = paris.data_dir().join("postgresql.auto.conf.tmp");
        fs::create_dir(&taken).expect("a directory");
        let said = oslo.psql("app", REJOIN);
        assert!(!said.ok && said.output.contains("postgresql.auto.conf.tmp"), "{said}");
        assert_eq!(paris.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "false");
        assert_eq!(slots(&oslo).len(), 1, "the copy is complete, and its slot keeps what it needs");
        fs::remove_dir(&taken).expect("it is there");
        if named {
            change_names(&paris);
        }
        if stopped {
            paris.stop();
            paris.start_again();
            assert_eq!(paris.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "true");
        }
        if stopped {
            apply(&oslo);
            assert_eq!(beside(&paris), [""; 0], "what it was before is gone");
        }
        let said = rejoin(&oslo);
        assert_eq!(said.contains("returns on the copy"), !stopped, "{said}");
        assert_eq!(said.contains("paris: complete"), !named, "{said}");
        assert_eq!(beside(&paris), [""; 0]);
        assert!(!paris.data_dir().join("pg_nodes.clone").exists());
        assert_follows(&paris, &oslo);
    }
}

/// A copy that its server does not return on goes with the link.
#[test]
fn a_copy_that_is_given_up_leaves_nothing() {
    let (mut paris, oslo) = pair(&[NO_REWIND]);
    part(&mut paris, &oslo);
    for complete in [false, true] {
        let taken = paris.data_dir().join("postgresql.auto.conf.tmp");
        if complete {
            fs::create_dir(&taken).expect("a directory");
            assert!(!oslo.psql("app", REJOIN).ok);
            fs::remove_dir(&taken).expect("it is there");
        } else {
            let running = begin_slowly(&oslo);
            paris.crash();
            assert!(!running.join().expect("psql ran").ok);
            paris.start_again();
        }
        assert_eq!(beside(&paris).len(), 1, "something is left");
        let give_up = "SELECT nodes.remove_link('paris'); CALL nodes.apply()";
        if oslo.query_texts("app", "SELECT name FROM nodes.link") == ["paris"] {
            let said = oslo.psql("app", give_up);
            assert!(said.ok && said.output.contains("nothing is left of an unf"), "{said}");
        }
        assert_eq!((beside(&paris), slots(&oslo)), (vec![], vec![]));
        assert_eq!(paris.query_one_text("app", "SELECT pg_is_in_recovery()::text"), "false");
    }
}

#[test]
fn old_data_stays_until_the_copy_runs() {
    let (mut paris, oslo) = pair(&[NO_REWIND]);
    part(&mut paris, &oslo);
    let conf = fs::read(paris.data_dir().join("postgresql.conf")).expect("a file");
    // It runs on, and will not start again.
    paris.append_conf("nonsense = on");
    let said = oslo.psql("app", "CALL nodes.rejoin('paris', timeout => '5 s')");
    let old = copy_of(&paris);
    let told = ["has not returned yet", &format!("Its old data is in \"{}\"", old.display())];
    assert!(!said.ok && told.iter().all(|text| said.output.contains(text)), "{said}");
    let marked = |directory: &PathBuf| directory.join("pg_nodes.clone").exists();
    assert!(old.join("PG_VERSION").exists() && !marked(&old) && marked(&paris.data_dir()));
    fs::write(paris.data_dir().join("postgresql.conf"), conf).expect("it is there");
    // Takes note that it has ended.
    paris.crash();
    paris.start_again();
    rejoin(&oslo);
    assert_follows(&paris, &oslo);
    assert!(beside(&paris).is_empty() && !marked(&paris.data_dir()));
}

/// One that could not follow any more is made anew.
#[test]
fn a_complete_copy_whose_slot_is_gone_is_not_used() {
    let (mut paris, oslo) = pair(&[NO_REWIND]);
    part(&mut paris, &oslo);
    let taken = paris.data_dir().join("postgresql.auto.conf.tmp");
    fs::create_dir(&taken).expect("a directory");
    assert!(!oslo.psql("app", REJOIN).ok);
    fs::remove_dir(&taken).expect("it is there");
    assert!(copy_of(&paris).join("pg_nodes.clone").exists());
    oslo.sql("app", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    for statement in ["INSERT INTO orders VALUES (4)", "SELECT pg_switch_wal()", "CHECKPOINT"] {
        oslo.sql("app", statement);
    }
    let said = rejoin(&oslo);
    assert!(said.contains("paris: copied") && said.contains("returns on the copy"), "{said}");
    oslo.sql("app", "DELETE FROM orders WHERE id = 4");
    assert_follows(&paris, &oslo);
    assert!(beside(&paris).is_empty());
}

/// As the server itself does before it stops: with its own configuration, which here names nobody
/// to follow yet.
fn change_names(paris: &Server) {
    let data = paris.data_dir();
    let copy = copy_of(paris);
    for name in ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "postmaster.opts"] {
        fs::copy(data.join(name), copy.join(name)).expect("it is there");
        pg_test::user::give(&copy.join(name));
    }
    let other = data.with_file_name("data.other");
    for (from, to) in [(&data, &other), (&copy, &data), (&other, &copy)] {
        fs::rename(from, to).expect("it has another name now");
    }
}

fn copy_of(paris: &Server) -> PathBuf {
    let names = beside(paris);
    assert!(names.len() == 1 && names[0].ends_with(".swap"), "{names:?}");
    paris.data_dir().with_file_name(&names[0])
}
