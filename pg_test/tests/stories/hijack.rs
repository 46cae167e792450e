//! A caller whose search path is full of traps: whatever pg_nodes does with more rights than the
//! caller has, it steps into none.

use pg_test::Server;

/// Functions, operators and relations that stand where unqualified names might look for them.
/// Whoever runs one with more rights than the manager's makes the manager a superuser.
const TRAPS: &str = r#"
    CREATE SCHEMA evil;
    CREATE TABLE evil.caught (who name, how text);
    CREATE FUNCTION evil.act(how text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO evil.caught VALUES (current_user, how);
      IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        ALTER ROLE manager SUPERUSER;
      END IF;
    END $$;
    CREATE FUNCTION evil.text_op(text, text) RETURNS boolean LANGUAGE plpgsql AS
      $$BEGIN PERFORM evil.act('text op'); RETURN true; END$$;
    CREATE FUNCTION evil.int_op(integer, integer) RETURNS boolean LANGUAGE plpgsql AS
      $$BEGIN PERFORM evil.act('integer op'); RETURN true; END$$;
    CREATE FUNCTION evil.join_op(text, text) RETURNS text LANGUAGE plpgsql AS
      $$BEGIN PERFORM evil.act('||'); RETURN 'x'; END$$;
    CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_op);
    CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_op);
    CREATE OPERATOR evil.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = evil.int_op);
    CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.join_op);
    CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
      $$BEGIN PERFORM evil.act('clock'); RETURN pg_catalog.now(); END$$;
    CREATE FUNCTION evil.gen_random_uuid() RETURNS uuid LANGUAGE plpgsql AS
      $$BEGIN PERFORM evil.act('uuid'); RETURN pg_catalog.gen_random_uuid(); END$$;
    CREATE FUNCTION evil.pg_control_system(OUT system_identifier bigint) LANGUAGE plpgsql AS
      $$BEGIN PERFORM evil.act('control'); system_identifier := 1; END$$;
    CREATE FUNCTION evil.pg_try_advisory_lock(bigint) RETURNS boolean LANGUAGE plpgsql AS
      $$BEGIN PERFORM evil.act('lock'); RETURN true; END$$;
    CREATE FUNCTION evil.json_agg(anyelement) RETURNS json LANGUAGE plpgsql AS
      $$BEGIN PERFORM evil.act('json'); RETURN '[]'; END$$;
    CREATE TEMP VIEW pg_class AS SELECT evil.text_op('a', 'b') FROM pg_catalog.pg_am;
    CREATE TEMP TABLE node AS TABLE pg_catalog.pg_am;
    SET search_path = evil, pg_temp, pg_catalog;"#;

#[test]
fn a_hostile_search_path_catches_nobody() {
    let paris = Server::builder("paris").start();
    let london = Server::builder("london").password("s3cret").start();
    for server in [&paris, &london] {
        server.create_db("app");
    }
    london.sql("app", "CREATE SCHEMA inventory; CREATE TABLE inventory.items AS SELECT 1 AS id");
    paris.sql(
        "app",
        "CREATE EXTENSION pg_nodes; CREATE ROLE manager;
         GRANT USAGE ON SCHEMA nodes TO manager;
         GRANT EXECUTE ON ALL ROUTINES IN SCHEMA nodes TO manager;
         GRANT CREATE, TEMPORARY ON DATABASE app TO manager",
    );
    let mut manager = paris.caller("manager");
    manager.allowed(TRAPS);
    let trap = manager.0.query_one("SELECT 'a'::text = 'b'::text", &[]).expect("the trap works");
    assert!(trap.get::<_, bool>(0), "the trap works");
    manager.allowed("DELETE FROM evil.caught");

    let (here, there) = (paris.conninfo("app"), london.conninfo("app"));
    manager.allowed(&format!("SELECT nodes.add_node('london', '{there} password=s3cret')"));
    paris.sql("app", &format!("SELECT nodes.add_node('paris', '{here}')"));
    for call in [
        "SELECT nodes.add_foreign_schema('stock', 'london', 'inventory')",
        "SELECT * FROM nodes.plan()",
        "CALL nodes.apply()",
        "SELECT * FROM nodes.observe_nodes()",
        "SELECT * FROM nodes.observe_links()",
        "SELECT nodes.wait_for_link('stock', '9s')",
        "SELECT nodes.alter_link('stock', writable => false)",
        "SELECT nodes.set_password('london', 's3cret')",
        "SELECT nodes.rename_node('london', 'londinium')",
        "SELECT nodes.topology()",
        "CALL nodes.teardown()",
    ] {
        manager.allowed(call);
    }
    let caught = "SELECT who || ' ran ' || how FROM evil.caught WHERE who <> 'manager'";
    assert_eq!(paris.query_texts("app", caught), [""; 0], "nobody with more rights was caught");
    let promoted = "SELECT rolsuper::text FROM pg_roles WHERE rolname = 'manager'";
    assert_eq!(paris.query_one_text("app", promoted), "false");
    paris.assert_no_residue("app");
    london.assert_no_residue("app");
}
