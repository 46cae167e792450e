//! `make demo`: three servers and the session of the README, played in front of you.
//!
//! `demo DIRECTORY` starts the servers below that directory and leaves them running;
//! `demo DIRECTORY stop` stops them.
use pg_test::{Install, LONG, Server, is_port_free, remove_leftover, wait_until};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

const DB: &str = "app";
const NAMES: [&str; 3] = ["paris", "london", "oslo"];
const TABLES: &str = "\
CREATE TABLE public.customers (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.orders (id int PRIMARY KEY, customer int NOT NULL, item text NOT NULL);";
const LONDON_DATA: &str = "\
INSERT INTO public.customers VALUES (1, 'Ada'), (2, 'Edgar');
INSERT INTO public.orders VALUES (1, 1, 'lamp'), (2, 2, 'chair');
CREATE SCHEMA inventory;
CREATE TABLE inventory.items (item text PRIMARY KEY, in_stock int NOT NULL);
INSERT INTO inventory.items VALUES ('chair', 12), ('lamp', 3), ('table', 0);";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [directory] => play(Path::new(directory)),
        [directory, "stop"] => stop(Path::new(directory)),
        _ => {
            eprintln!("usage: demo DIRECTORY [stop]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn stop(directory: &Path) {
    for name in NAMES {
        remove_leftover(&directory.join(name));
    }
    // Fails if somebody keeps something else there; then it stays.
    let _ = std::fs::remove_dir(directory);
    println!("The servers of the demo are stopped and removed.");
}

fn play(directory: &Path) {
    let cluster = Cluster::start(directory);
    cluster.make_links();
    cluster.prove_links();
    cluster.say_goodbye();
}

/// paris, where the session takes place, london with the data, and oslo, a clone of paris.
struct Cluster {
    paris: Server,
    london: Server,
    oslo: Server,
}

impl Cluster {
    fn start(directory: &Path) -> Cluster {
        std::fs::create_dir_all(directory).expect("cannot make the directory of the demo");
        let directory = directory.canonicalize().expect("it was just made");
        for name in NAMES {
            remove_leftover(&directory.join(name));
        }
        narrate(
            "Three servers start: paris and london, each with a database, and oslo, a clone of paris.",
        );
        let mut ports = (5501..).filter(|&port| is_port_free(port));
        let mut builder = |name| {
            Server::builder(name).at(&directory.join(name)).port(ports.next().expect("a free port"))
        };
        let paris = builder("paris").start();
        let london = builder("london").start();
        for server in [&paris, &london] {
            server.create_db(DB);
            server.sql(DB, TABLES);
        }
        london.sql(DB, LONDON_DATA);
        let oslo = paris.clone_standby_with(builder("oslo"));
        Cluster { paris, london, oslo }
    }

    fn make_links(&self) {
        narrate("On paris: register the nodes.");
        show(&self.paris, "CREATE EXTENSION pg_nodes;");
        for node in [&self.paris, &self.london, &self.oslo] {
            let conninfo = format!("host=127.0.0.1 port={} dbname={DB} user=postgres", node.port());
            show(&self.paris, &format!("SELECT nodes.add_node('{}', '{conninfo}');", node.name()));
        }
        narrate("Say which links should exist. Nothing happens yet.");
        for link in [
            "SELECT nodes.add_standby('oslo', primary_node => 'paris');",
            "SELECT nodes.add_subscription('orders_feed', publisher => 'london', subscriber => 'paris',\n    \
             tables => '{public.orders,public.customers}');",
            "SELECT nodes.add_foreign_schema('stock', node => 'london', remote_schema => 'inventory');",
        ] {
            show(&self.paris, link);
        }
        narrate("Every statement, on which node; then do it.");
        show(&self.paris, "SELECT step, node, link, action, danger, command FROM nodes.plan();");
        show(&self.paris, "CALL nodes.apply();");
    }

    fn prove_links(&self) {
        narrate(
            "An order placed in london arrives in paris by subscription, and from there in oslo by streaming.",
        );
        show(&self.london, "INSERT INTO public.orders VALUES (3, 1, 'table');");
        for server in [&self.paris, &self.oslo] {
            wait_until(&format!("the order is on {}", server.name()), LONG, || {
                server.query_one_text(DB, "SELECT count(*) FROM public.orders") == "3"
            });
            show(server, "SELECT * FROM public.orders ORDER BY id;");
        }
        narrate("paris reads what london has in stock.");
        show(&self.paris, "SELECT * FROM stock.items ORDER BY item;");
        narrate("Nothing is left to do.");
        show(&self.paris, "SELECT step, node, link, action FROM nodes.plan();");
        let steps = self.paris.query_one_text(DB, "SELECT count(*) FROM nodes.plan()");
        assert_eq!(steps, "0", "the plan should be empty");
    }

    fn say_goodbye(&self) {
        narrate("The servers stay. Look around:");
        for server in [&self.paris, &self.london, &self.oslo] {
            println!(
                "  {} -h 127.0.0.1 -p {} -U postgres -d {DB}   # {}",
                psql_path().display(),
                server.port(),
                server.name()
            );
        }
        println!("  make demo-stop");
    }
}

/// The shortest path to the right psql.
fn psql_path() -> PathBuf {
    let psql = Install::get().pg_config().with_file_name("psql");
    let here = std::env::current_dir().expect("a current directory");
    psql.strip_prefix(here).map(Path::to_owned).unwrap_or(psql)
}

fn narrate(text: &str) {
    println!("\n-- {text}\n");
}

/// Echoes a statement as psql would, then has psql run it; ends the demo if it fails.
fn show(server: &Server, statement: &str) {
    let name = server.name();
    println!("{name}=# {}", statement.replace('\n', &format!("\n{name}-# ")));
    let status = server
        .client_program("psql", DB)
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-P", "format=wrapped", "-P", "columns=120"])
        .args(["-c", statement])
        .stdin(Stdio::null())
        .stderr(std::io::stdout())
        .status()
        .expect("cannot run psql");
    if !status.success() {
        println!("\nThe demo stops here; its servers run until `make demo-stop`.");
        std::process::exit(1);
    }
}
