//! The session of the README: three servers, three kinds of link, a changed port and password,
//! and nothing left in the end.

use pg_test::trio::Trio;
use pg_test::{LONG, wait_until};

#[test]
fn three_links_are_made_carry_rows_and_go() {
    let trio = Trio::start();
    trio.register();
    trio.link();
    assert!(!trio.plan().is_empty(), "there is something to do");
    assert_eq!(trio.paris.residue("app"), [""; 0], "planning changes nothing");

    let said = trio.apply();
    println!("{said}");
    assert_eq!(trio.plan(), [""; 0], "after apply the plan is empty");
    all_three_carry_rows(&trio, 2000);

    trio.paris.sql("app", "CALL nodes.teardown()");
    for server in [&trio.paris, &trio.london] {
        server.assert_no_residue("app");
    }
    wait_until("oslo to forget its primary", LONG, || {
        trio.oslo.query_one_text("app", "SHOW primary_conninfo").is_empty()
    });
    trio.oslo.assert_no_residue("app");
    assert_eq!(trio.paris.query_one_text("app", "SELECT count(*)::text FROM nodes.node"), "0");
    assert_eq!(trio.paris.query_one_text("app", "SELECT count(*)::text FROM orders"), "1001");
}

/// An order placed in London is seen in Paris and, by way of Paris, in Oslo; London's items
/// are seen in Paris.
fn all_three_carry_rows(trio: &Trio, id: u32) {
    trio.london.sql("app", &format!("INSERT INTO orders VALUES ({id}, 'new')"));
    let count = format!("SELECT count(*)::text FROM orders WHERE id = {id}");
    for server in [&trio.paris, &trio.oslo] {
        wait_until("the order to arrive", LONG, || server.query_one_text("app", &count) == "1");
    }
    let items = "SELECT count(*)::text FROM stock.items";
    assert_eq!(trio.paris.query_one_text("app", items), "2");
}
