//! An initial copy that takes long is told of while it goes on, with tables and rows, and in the
//! end with all of them.

use pg_test::trio::Trio;
use pg_test::{LONG, wait_until};

/// Every row of orders takes a while to arrive; visits goes into a table of two partitions.
const SLOW: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION slow();
    ALTER TABLE orders ENABLE ALWAYS TRIGGER slow;
    CREATE TABLE visits (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (6);
    CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM (6) TO (100)";

/// The rows of orders that a NOTICE in the middle of the copy tells of.
fn rows_on_the_way(said: &str) -> Vec<u32> {
    let middle = said.lines().filter(|line| line.contains("rows of the others"));
    let rows = |line: &str| {
        let (_, rest) = line.split_once("tables done, ").expect("tables, then rows");
        rest.split(' ').next().and_then(|rows| rows.parse().ok()).expect("a number")
    };
    middle.map(rows).collect()
}

#[test]
fn a_copy_is_told_of_with_its_rows() {
    let mut trio = Trio::start();
    trio.london.sql("app", "CREATE TABLE visits AS SELECT generate_series(1, 15) AS id");
    trio.london.sql("app", "ALTER TABLE visits ADD PRIMARY KEY (id)");
    trio.paris.sql("app", SLOW);
    trio.register();
    trio.paris.sql(
        "app",
        "SELECT nodes.add_subscription('feed', 'london', 'paris', '{orders,customers,visits}')",
    );
    let said = trio.apply();
    println!("{said}");
    let seen = rows_on_the_way(&said);
    assert!(seen.len() >= 2, "it takes four seconds and more:\n{said}");
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.iter().all(|rows| (1..1000).contains(rows)), "{seen:?}");
    assert!(said.contains("link \"feed\": initial copy, 2 of 3 tables done, "), "{said}");
    assert!(said.contains("link \"feed\": initial copy done, 3 tables, 1025 rows\n"), "{said}");

    // The statistics of what was copied before do not survive a crash.
    let last = "SELECT string_agg(srsubstate::text, '') FROM pg_subscription_rel";
    wait_until("all stream", LONG, || trio.paris.query_one_text("app", last) == "rrr");
    trio.paris.crash();
    trio.paris.start_again();
    trio.london.sql("app", "CREATE TABLE later (id int PRIMARY KEY)");
    trio.paris.sql(
        "app",
        "CREATE TABLE later (id int PRIMARY KEY);
         SELECT nodes.alter_link('feed', tables => '{orders,customers,visits,later}')",
    );
    let said = trio.apply();
    assert!(said.contains("link \"feed\": initial copy done, 4 tables\n"), "{said}");
    trio.paris.sql("app", "CALL nodes.teardown()");
    for server in [&trio.paris, &trio.london] {
        server.assert_no_residue("app");
    }
}
