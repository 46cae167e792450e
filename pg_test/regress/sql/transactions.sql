-- The registry is transactional; what commits by itself refuses a transaction block.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION pg_nodes;
CREATE VIEW everything AS
  SELECT (SELECT count(*) FROM nodes.registry) AS registry, (SELECT count(*) FROM nodes.node) AS nodes,
         (SELECT count(*) FROM nodes.secret) AS secrets, (SELECT count(*) FROM nodes.link) AS links,
         (SELECT count(*) FROM nodes.event) AS events, (SELECT count(*) FROM nodes.step_log) AS steps;

-- without a registry
SELECT nodes.take_over();
\echo :LAST_ERROR_SQLSTATE
CALL nodes.apply();
CALL nodes.teardown();
TABLE everything;

-- ROLLBACK leaves nothing
BEGIN;
SELECT FROM nodes.add_node('paris', 'host=127.0.0.1 port=1 password=p');
SELECT FROM nodes.add_node('london', 'host=127.0.0.1 port=1');
SELECT FROM nodes.add_subscription('feed', 'london', 'paris', '{orders}');
TABLE everything;
ROLLBACK;
TABLE everything;

-- neither does a savepoint, nor an error
BEGIN;
SELECT FROM nodes.add_node('paris', 'host=127.0.0.1 port=1');
SAVEPOINT one;
SELECT FROM nodes.add_node('london', 'host=127.0.0.1 port=1');
SELECT FROM nodes.add_standby('london', 'paris');
ROLLBACK TO one;
SELECT nodes.add_standby('london', 'paris');
\echo :LAST_ERROR_SQLSTATE
COMMIT;
TABLE everything;

-- a block sees what it has done
BEGIN;
SELECT FROM nodes.add_node('paris', 'host=127.0.0.1 port=1');
SELECT FROM nodes.add_node('london', 'host=127.0.0.1 port=1');
SELECT FROM nodes.add_subscription('feed', 'london', 'paris', '{orders}');
SELECT nodes.add_subscription('feed', 'london', 'paris', '{orders}');
ROLLBACK;
SELECT FROM nodes.add_node('paris', 'host=127.0.0.1 port=1');
SELECT FROM nodes.add_node('london', 'host=127.0.0.1 port=1');
BEGIN;
SELECT FROM nodes.add_standby('london', 'paris');
SELECT nodes.add_standby('paris', 'london');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
TABLE everything;

-- changes, too, are undone
BEGIN;
SELECT FROM nodes.alter_node('paris', 'host=127.0.0.1 port=2 password=p');
SELECT FROM nodes.rename_node('london', 'londres');
SELECT name, conninfo FROM nodes.node ORDER BY id;
ROLLBACK;
SELECT name, conninfo FROM nodes.node ORDER BY id;
TABLE everything;

-- apply() and teardown() commit step by step
BEGIN;
CALL nodes.apply();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
CALL nodes.teardown();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
DO $$ BEGIN CALL nodes.apply(); END $$;
DO $$ BEGIN CALL nodes.apply(); EXCEPTION WHEN feature_not_supported THEN NULL; END $$;
\echo :LAST_ERROR_SQLSTATE
CREATE FUNCTION apply_in_function() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL nodes.apply(); END $$;
SELECT apply_in_function();
\echo :LAST_ERROR_SQLSTATE
SELECT 1 AS both \; CALL nodes.apply();
\echo :LAST_ERROR_SQLSTATE
CALL nodes.apply(timeout => '-1 s');
\echo :LAST_ERROR_SQLSTATE
TABLE everything;

-- reading works in a block, even in one that reads only
BEGIN READ ONLY;
SELECT * FROM nodes.plan();
SELECT count(*) FROM nodes.link_status;
SELECT node, is_self, health FROM nodes.status ORDER BY node;
SELECT nodes.add_node('oslo', 'host=127.0.0.1 port=1');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;

DROP VIEW everything;
DROP FUNCTION apply_in_function();
DROP EXTENSION pg_nodes;
