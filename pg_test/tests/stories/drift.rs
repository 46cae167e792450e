//! A person changes by hand what pg_nodes made: the plan shows each change, apply takes it back.
//! What merely has the wanted name is shown as a problem and left alone.

use pg_test::trio::Trio;
use pg_test::{LONG, Server, wait_until};

/// Statements typed on a server, and the rules by which the plan notices.
struct Drift {
    on: &'static str,
    typed: &'static [&'static str],
    rules: &'static [&'static str],
}

const DRIFTS: &[Drift] = &[
    Drift { on: "paris", typed: &["ALTER SUBSCRIPTION orders_feed DISABLE"], rules: &["SU29"] },
    Drift {
        on: "paris",
        typed: &["ALTER SUBSCRIPTION orders_feed CONNECTION 'host=127.0.0.1 port=1'"],
        rules: &["SU25"],
    },
    Drift {
        on: "paris",
        typed: &["ALTER SUBSCRIPTION orders_feed SET PUBLICATION other WITH (refresh = false)"],
        rules: &["SU26"],
    },
    Drift {
        on: "paris",
        typed: &[
            "ALTER SUBSCRIPTION orders_feed DISABLE",
            "ALTER SUBSCRIPTION orders_feed SET (slot_name = NONE)",
        ],
        rules: &["SU27", "SU29"],
    },
    Drift {
        on: "london",
        typed: &["ALTER PUBLICATION orders_feed DROP TABLE customers"],
        rules: &["SU21", "SU30"],
    },
    Drift {
        on: "london",
        typed: &["ALTER PUBLICATION orders_feed SET (publish = 'insert')"],
        rules: &["SU22"],
    },
    Drift {
        on: "paris",
        typed: &["ALTER SUBSCRIPTION orders_feed RENAME TO \"feed, old\""],
        rules: &["SU33"],
    },
    Drift {
        on: "london",
        typed: &["ALTER PUBLICATION orders_feed RENAME TO \"feed, old\""],
        rules: &["SU32"],
    },
    Drift {
        on: "london",
        typed: &["ALTER PUBLICATION orders_feed SET TABLE orders WHERE (id > 100000),
                  customers (id)"],
        rules: &["SU34"],
    },
    Drift {
        on: "london",
        typed: &["ALTER PUBLICATION orders_feed ADD TABLES IN SCHEMA inventory"],
        rules: &["SU30", "SU35"],
    },
    Drift { on: "london", typed: &[FOR_ALL_TABLES], rules: &["SU20", "SU30"] },
    Drift {
        on: "paris",
        typed: &["ALTER SERVER stock OPTIONS (SET port '1', ADD fetch_size '7')"],
        rules: &["FO21"],
    },
    Drift {
        on: "paris",
        typed: &["DROP USER MAPPING FOR postgres SERVER stock"],
        rules: &["FO22"],
    },
    Drift {
        on: "paris",
        typed: &["ALTER USER MAPPING FOR postgres SERVER stock OPTIONS (SET user 'nobody')"],
        rules: &["FO23"],
    },
    Drift { on: "paris", typed: &["DROP FOREIGN TABLE stock.items"], rules: &["FO26"] },
    Drift {
        on: "paris",
        typed: &["ALTER FOREIGN TABLE stock.items DROP COLUMN label"],
        rules: &["FO27"],
    },
    Drift {
        on: "paris",
        typed: &["ALTER FOREIGN TABLE stock.items OPTIONS (ADD updatable 'false')"],
        rules: &["FO33"],
    },
    Drift {
        on: "paris",
        typed: &["ALTER FOREIGN TABLE stock.items OPTIONS (SET table_name 'nothing')"],
        rules: &["FO33"],
    },
    Drift {
        on: "paris",
        typed: &["ALTER FOREIGN TABLE stock.items ALTER COLUMN label DROP NOT NULL"],
        rules: &["FO27"],
    },
    Drift {
        on: "london",
        typed: &["ALTER TABLE inventory.items ALTER COLUMN label DROP NOT NULL"],
        rules: &["FO27"],
    },
    Drift { on: "paris", typed: &["ALTER SERVER stock RENAME TO old"], rules: &["FO29"] },
    Drift { on: "paris", typed: &["ALTER SCHEMA stock RENAME TO old"], rules: &["FO30"] },
    Drift {
        on: "paris",
        typed: &[
            "ALTER SERVER stock RENAME TO old",
            "ALTER SCHEMA stock RENAME TO \"old one\"",
            "ALTER FOREIGN TABLE \"old one\".items DROP COLUMN price",
            "DROP USER MAPPING FOR postgres SERVER old",
        ],
        rules: &["FO22", "FO27", "FO29", "FO30"],
    },
    Drift {
        on: "paris",
        typed: &["SELECT nodes.alter_link('stock', roles => '{postgres,alice}')"],
        rules: &["FO22", "FO31"],
    },
    Drift {
        on: "paris",
        typed: &["REVOKE SELECT, DELETE ON stock.items FROM alice"],
        rules: &["FO31"],
    },
    Drift { on: "paris", typed: &["REVOKE USAGE ON SCHEMA stock FROM alice"], rules: &["FO31"] },
    Drift {
        on: "paris",
        typed: &["SELECT nodes.alter_link('stock', writable => false, public => true)"],
        rules: &["FO21", "FO22", "FO31", "FO32"],
    },
    Drift { on: "paris", typed: &["GRANT INSERT ON stock.items TO PUBLIC"], rules: &["FO32"] },
    Drift {
        on: "paris",
        typed: &["SELECT nodes.alter_link('stock', writable => true, public => false)"],
        rules: &["FO21", "FO28", "FO31", "FO32"],
    },
    Drift { on: "paris", typed: &["DROP SCHEMA stock CASCADE"], rules: &["FO24", "FO26", "FO31"] },
    Drift {
        on: "paris",
        typed: &["DROP SERVER stock CASCADE"],
        rules: &["FO20", "FO22", "FO26", "FO31"],
    },
    Drift {
        on: "london",
        typed: &["ALTER TABLE inventory.items ADD COLUMN \"of Ünit\" text DEFAULT 'piece'"],
        rules: &["FO27"],
    },
    Drift {
        on: "london",
        typed: &["ALTER TABLE inventory.items ALTER COLUMN price TYPE bigint"],
        rules: &["FO27"],
    },
    Drift {
        on: "london",
        typed: &["ALTER TABLE inventory.items DROP COLUMN label"],
        rules: &["FO27"],
    },
    Drift {
        on: "london",
        typed: &["CREATE TABLE inventory.extra (id int)"],
        rules: &["FO26", "FO31"],
    },
    Drift { on: "london", typed: &["DROP TABLE inventory.extra"], rules: &["FO25"] },
    Drift {
        on: "paris",
        typed: &["SELECT nodes.alter_link('stock', roles => '{postgres}')"],
        rules: &["FO28", "FO32"],
    },
    Drift {
        on: "oslo",
        typed: &["ALTER SYSTEM SET primary_slot_name = 'elsewhere'", RELOAD],
        rules: &["ST22"],
    },
    Drift {
        on: "oslo",
        typed: &["ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'", RELOAD],
        rules: &["ST22"],
    },
    Drift { on: "oslo", typed: &["ALTER SYSTEM RESET primary_conninfo"], rules: &["ST22"] },
];

/// The publication made anew by hand, comment included.
const FOR_ALL_TABLES: &str = "
    DO $$ DECLARE mark text := (SELECT obj_description(oid, 'pg_publication')
                                FROM pg_publication WHERE pubname = 'orders_feed');
    BEGIN
      DROP PUBLICATION orders_feed;
      CREATE PUBLICATION orders_feed FOR ALL TABLES;
      EXECUTE format('COMMENT ON PUBLICATION orders_feed IS %L', mark);
    END $$";

const RELOAD: &str = "SELECT pg_reload_conf()";

fn server<'a>(trio: &'a Trio, name: &str) -> &'a Server {
    let servers = [&trio.paris, &trio.london, &trio.oslo];
    servers.into_iter().find(|server| server.name() == name).expect("one of the three")
}

fn rules(trio: &Trio) -> Vec<String> {
    trio.paris.query_texts("app", "SELECT DISTINCT rule FROM nodes.plan() ORDER BY 1")
}

/// The plan names these rules and no others; apply makes it empty.
fn heals(trio: &Trio, what: &str, expected: &[&str]) {
    assert_eq!(rules(trio), expected, "{what}\n{:#?}", trio.plan());
    trio.apply();
    assert_eq!(trio.plan(), [""; 0], "healed of {what}");
}

/// A new order reaches Paris and Oslo; the foreign table can be read.
fn rows_flow(trio: &Trio, id: usize) {
    trio.london.sql("app", &format!("INSERT INTO orders VALUES ({id}, 'new')"));
    let count = format!("SELECT count(*)::text FROM orders WHERE id = {id}");
    for server in [&trio.paris, &trio.oslo] {
        wait_until("the order to arrive", LONG, || server.query_one_text("app", &count) == "1");
    }
    assert_eq!(trio.paris.query_texts("app", "SELECT id FROM stock.items").len(), 2);
}

#[test]
fn what_a_person_changes_is_shown_and_healed() {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio.london.sql("app", "CREATE PUBLICATION other FOR TABLE orders");
    trio.paris.sql("app", "CREATE ROLE alice");
    trio.apply();
    for (drift, id) in DRIFTS.iter().zip(2000..) {
        for statement in drift.typed {
            server(&trio, drift.on).sql("app", statement);
        }
        heals(&trio, &format!("{:?} on {}", drift.typed, drift.on), drift.rules);
        rows_flow(&trio, id);
    }
    warns_of_unseen_changes(&trio);
    copies_nothing_on_top_of_rows(&trio);
    rows_flow(&trio, 2900);
    heals_a_dropped_slot(&trio);
    rows_flow(&trio, 3000);

    trio.london.sql("app", "DROP PUBLICATION other");
    trio.paris.sql("app", "CALL nodes.teardown()");
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
    wait_until("oslo to be clean", LONG, || trio.oslo.residue("app").is_empty());
}

/// A table that comes back is not copied again: the plan says what that means.
fn warns_of_unseen_changes(trio: &Trio) {
    trio.london.sql("app", "ALTER PUBLICATION orders_feed DROP TABLE customers");
    let dangers = "SELECT danger FROM nodes.plan() WHERE danger IS NOT NULL";
    let shown = trio.paris.query_texts("app", dangers);
    assert_eq!(shown, ["\"paris\" lacks what changed meanwhile in \"public\".\"customers\""]);
    trio.apply();
}

/// A dropped subscription is made again when that is safe: the tables still hold their rows.
fn copies_nothing_on_top_of_rows(trio: &Trio) {
    for statement in [
        "ALTER SUBSCRIPTION orders_feed DISABLE",
        "ALTER SUBSCRIPTION orders_feed SET (slot_name = NONE)",
        // Postgres itself forgets to.
        "COMMENT ON SUBSCRIPTION orders_feed IS NULL",
        "DROP SUBSCRIPTION orders_feed",
    ] {
        trio.paris.sql("app", statement);
    }
    assert_eq!(rules(trio), ["SU18"], "{:#?}", trio.plan());
    let refused = trio.paris.psql("app", "CALL nodes.apply()");
    assert!(!refused.ok && refused.output.contains("TRUNCATE it there"), "{refused}");
    trio.paris.sql("app", "TRUNCATE orders, customers");
    trio.apply();
    assert_eq!(trio.plan(), [""; 0], "made again");
    let count = "SELECT format('%s %s', (SELECT count(*) FROM orders),
                               (SELECT count(*) FROM customers))";
    assert_eq!(trio.paris.query_one_text("app", count), trio.london.query_one_text("app", count));
}

/// The standby must let go of its slot before a person can drop it.
fn heals_a_dropped_slot(trio: &Trio) {
    trio.oslo.sql("app", "ALTER SYSTEM SET primary_slot_name = ''");
    trio.oslo.sql("app", RELOAD);
    let slot = "SELECT slot_name FROM pg_replication_slots WHERE NOT active";
    wait_until("oslo to let go", LONG, || trio.paris.query_texts("app", slot).len() == 1);
    trio.paris
        .query_texts("app", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    heals(trio, "a dropped slot", &["ST20", "ST22"]);
    let active = "SELECT slot_name FROM pg_replication_slots WHERE active";
    wait_until("oslo to use its slot", LONG, || trio.paris.query_texts("app", active).len() == 1);
}

/// Rights on `table` that `alice` has, by whatever way.
fn rights_of_alice(trio: &Trio, table: &str) -> Vec<String> {
    let query = format!(
        "SELECT r FROM unnest('{{SELECT,INSERT,UPDATE,DELETE}}'::text[]) r
         WHERE has_table_privilege('alice', '{table}', r) ORDER BY r"
    );
    trio.paris.query_texts("app", &query)
}

const ALL: [&str; 4] = ["DELETE", "INSERT", "SELECT", "UPDATE"];

#[test]
fn rights_are_those_of_the_link_on_the_tables_of_the_link() {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio.apply();
    trio.london.sql("app", "CREATE SCHEMA other; CREATE TABLE other.bills (id int)");
    trio.paris.sql(
        "app",
        "CREATE ROLE alice; CREATE ROLE carol; CREATE TABLE stock.wages (id int);
         IMPORT FOREIGN SCHEMA other FROM SERVER stock INTO stock;
         GRANT SELECT ON stock.items TO carol",
    );
    assert_eq!(trio.plan(), [""; 0], "a table that shows another schema is nobody's drift");
    trio.paris.sql("app", "SELECT nodes.alter_link('stock', roles => '{postgres,alice}')");
    trio.london.sql("app", "CREATE TABLE inventory.shelves (id int)");
    trio.apply();
    assert_eq!(rights_of_alice(&trio, "stock.items"), ALL);
    assert_eq!(rights_of_alice(&trio, "stock.shelves"), ALL);
    for theirs in ["stock.wages", "stock.bills"] {
        assert_eq!(rights_of_alice(&trio, theirs), [""; 0], "{theirs}");
    }

    trio.paris.sql("app", "SELECT nodes.alter_link('stock', writable => false)");
    trio.apply();
    assert_eq!(rights_of_alice(&trio, "stock.items"), ["SELECT"]);
    trio.paris.sql("app", "SELECT nodes.alter_link('stock', roles => '{postgres}')");
    trio.apply();
    assert_eq!(rights_of_alice(&trio, "stock.items"), [""; 0]);
    let carol = "SELECT has_table_privilege('carol', 'stock.items', 'SELECT')::text";
    assert_eq!(trio.paris.query_one_text("app", carol), "true", "others keep what they have");
    assert_eq!(trio.plan(), [""; 0]);

    let remove = "SELECT nodes.remove_link('stock', keep_data => false)";
    trio.paris.sql("app", remove);
    trio.apply();
    let left = "SELECT relname FROM pg_class WHERE relnamespace = 'stock'::regnamespace ORDER BY 1";
    assert_eq!(trio.paris.query_texts("app", left), ["bills", "wages"]);
    trio.paris.sql("app", "DROP SERVER stock CASCADE");
    trio.paris.sql("app", "CALL nodes.teardown()");
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
}

/// A link that is removed takes what it made, whatever that is called by now; and postgres_fdw
/// is where people look for it.
#[test]
fn renamed_objects_go_with_their_link() {
    let trio = Trio::start();
    trio.register();
    trio.link();
    trio.apply();
    let place = "SELECT extnamespace::regnamespace::text FROM pg_extension
                 WHERE extname = 'postgres_fdw'";
    assert_eq!(trio.paris.query_one_text("app", place), "public");
    let rename = "ALTER SERVER stock RENAME TO old; ALTER SCHEMA stock RENAME TO \"old one\"";
    trio.paris.sql("app", rename);
    trio.paris.sql("app", "CREATE SCHEMA stock");
    let problem = "SELECT DISTINCT rule FROM nodes.plan() WHERE action = 'problem'";
    assert_eq!(trio.paris.query_texts("app", problem), ["FO10"], "{:#?}", trio.plan());

    trio.paris.sql("app", "CALL nodes.teardown()");
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(stock|old)' ORDER BY 1";
    assert_eq!(trio.paris.query_texts("app", schemas), ["stock"]);
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
}

/// What somebody else made, as text that changes with any change to it.
const STRANGERS: &str = "
    SELECT format('%s %s %s', oid, pubname, pubinsert) FROM pg_publication
    UNION ALL SELECT format('%s %s %s %s', oid, subname, subconninfo, subenabled) FROM pg_subscription
    UNION ALL SELECT format('%s %s %s', oid, srvname, srvoptions) FROM pg_foreign_server
    ORDER BY 1";

#[test]
fn what_others_made_is_a_problem_and_stays() {
    let trio = Trio::start();
    trio.register();
    trio.london.sql("app", "CREATE PUBLICATION orders_feed FOR TABLE customers");
    trio.paris.sql("app", "CREATE EXTENSION postgres_fdw");
    trio.paris.sql("app", "CREATE SERVER stock FOREIGN DATA WRAPPER postgres_fdw");
    let subscribe = "CREATE SUBSCRIPTION orders_feed CONNECTION 'host=nowhere' PUBLICATION p
                     WITH (connect = false)";
    trio.paris.sql("app", subscribe);
    let of_all = || {
        let each = |server: &Server| server.query_texts("app", STRANGERS);
        (each(&trio.paris), each(&trio.london))
    };
    let before = of_all();
    trio.link();
    let problems = "SELECT DISTINCT rule FROM nodes.plan() WHERE action = 'problem' ORDER BY 1";
    let shown = trio.paris.query_texts("app", problems);
    assert_eq!(shown, ["FO03", "SU09", "SU10"], "{:#?}", trio.plan());
    let apply = trio.paris.psql("app", "CALL nodes.apply()");
    assert!(!apply.ok && apply.output.contains("was not made by this registry"), "{apply}");
    assert_eq!(of_all(), before, "apply leaves alone what is not ours");

    trio.paris.sql("app", "CALL nodes.teardown()");
    assert_eq!(of_all(), before, "teardown leaves alone what is not ours");
    for statement in [
        "ALTER SUBSCRIPTION orders_feed SET (slot_name = NONE)",
        "DROP SUBSCRIPTION orders_feed",
        "DROP SERVER stock",
    ] {
        trio.paris.sql("app", statement);
    }
    trio.london.sql("app", "DROP PUBLICATION orders_feed");
    trio.paris.assert_no_residue("app");
    trio.london.assert_no_residue("app");
}
