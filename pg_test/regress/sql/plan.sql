-- The plan where nothing is to be done, or nobody answers. What libpq says is left out: it
-- depends on the version and the system.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION pg_nodes;
CREATE VIEW planned AS
  SELECT step, node, link, action, danger, command, regexp_replace(reason, ': .*', ': …') AS reason,
         regexp_replace(hint, 'nodes_[0-9a-f]+_', 'nodes_…_') AS hint, rule
    FROM nodes.plan();

-- an empty registry
TABLE planned;
CALL nodes.apply();
SELECT * FROM nodes.status;
SELECT * FROM nodes.link_status;
SELECT * FROM nodes.slots;
SELECT nodes.topology();

-- nodes without links are nobody's business
SELECT FROM nodes.add_node('paris', 'host=127.0.0.1 port=1 dbname=app');
SELECT FROM nodes.add_node('london', 'host=127.0.0.1 port=1 dbname=app password=hunter2');
SELECT FROM nodes.add_node('oslo', 'host=127.0.0.1 port=1 dbname=app');
TABLE planned;
CALL nodes.apply();
SELECT node, is_self, group_id, health, role, version, timeline, walsenders, error <> '' AS says_why FROM nodes.status;
SELECT nodes.topology();

-- links whose nodes do not answer
SELECT FROM nodes.add_standby('oslo', 'paris');
SELECT FROM nodes.add_subscription('feed', 'london', 'paris', '{orders}');
SELECT FROM nodes.add_foreign_schema('stock', 'london', on_node => 'paris');
\x
TABLE planned;
SELECT link, kind, from_node, to_node, state, regexp_replace(reason, ': .*', ': …') AS reason, hint FROM nodes.link_status;
\x
SELECT nodes.topology();
-- apply() warns, in libpq's words, and waits for better times
SET client_min_messages = error;
CALL nodes.apply();
RESET client_min_messages;
SELECT count(*) FROM nodes.step_log;
SELECT factor, ok, hint FROM nodes.test_node('london');
SELECT nodes.wait_for_node('london', '10 ms');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.wait_for_link('feed', '10 ms');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.wait_for_node('rome');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.wait_for_link('rome');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.test_node('rome');
\echo :LAST_ERROR_SQLSTATE

-- links that are to go, from nodes that do not answer
SELECT nodes.remove_node('london', cascade => true);
SELECT nodes.remove_link('oslo');
\x
TABLE planned;
SELECT link, kind, from_node, to_node, state, regexp_replace(reason, ': .*', ': …') AS reason, hint FROM nodes.link_status;
\x
SELECT nodes.wait_for_link('feed', '10 ms');
\echo :LAST_ERROR_SQLSTATE

-- a registry that was made on another server shows and does nothing
UPDATE nodes.registry SET system_identifier = '1';
SELECT step, node, link, action, reason, hint, rule FROM nodes.plan();
\set VERBOSITY terse
CALL nodes.apply();
\echo :LAST_ERROR_SQLSTATE
CALL nodes.teardown();
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('rome', 'host=127.0.0.1 port=1');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_standby('oslo', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.remove_link('feed');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM nodes.status;
SELECT nodes.alter_node('paris', 'host=127.0.0.1 port=2');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.set_password('paris', 'hunter2');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.rename_node('paris', 'rome');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.remove_node('oslo');
\echo :LAST_ERROR_SQLSTATE
SELECT id AS old_id FROM nodes.registry \gset
SELECT nodes.take_over() LIKE 'this server acts for the registry from now on; its new id is %' AS taken_over;
SELECT id <> :'old_id' AS new_id, system_identifier <> '1' AS here FROM nodes.registry;
SELECT count(*) > 0 AS acts FROM nodes.plan();

DROP VIEW planned;
DROP EXTENSION pg_nodes;
