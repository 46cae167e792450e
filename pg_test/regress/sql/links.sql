-- Links: what each call stores, answers and refuses. Nothing here connects, until the end.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION pg_nodes;
CREATE VIEW links AS
  SELECT link.name, kind, f.name AS "from", t.name AS "to", link.state, keep_data AS keep, spec
    FROM nodes.link JOIN nodes.node f ON f.id = from_node JOIN nodes.node t ON t.id = to_node
   ORDER BY link.id;

SELECT nodes.add_standby('oslo', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT FROM nodes.add_node('paris', 'host=192.0.2.1 dbname=app');
SELECT FROM nodes.add_node('london', 'host=192.0.2.2 dbname=app');
SELECT FROM nodes.add_node('oslo', 'host=192.0.2.3 dbname=app');
SELECT FROM nodes.add_node('bergen', 'host=192.0.2.4 dbname=app');

--
-- Standbys
--
SELECT nodes.add_standby('oslo', primary_node => 'paris');
SELECT nodes.add_standby('bergen', 'oslo', slot => false, name => 'cascade');
SELECT * FROM links;
SELECT nodes.add_standby('rome', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_standby('london', 'rome');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_standby('paris', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_standby('oslo', 'london');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_standby('paris', 'bergen');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_standby('london', 'paris', name => 'cascade');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_standby('london', 'paris', name => '');
\echo :LAST_ERROR_SQLSTATE

--
-- Subscriptions
--
SELECT nodes.add_subscription('feed', 'london', 'paris');
SELECT nodes.add_subscription('orders', publisher => 'london', subscriber => 'paris',
    tables => '{orders, public.Items, "\"Two words\".\"Dot.ted\""}', copy_data => false,
    options => '{"publish": "delete,insert", "binary": true, "streaming": "ON", "origin": "none"}');
SELECT * FROM links WHERE kind = 'subscription';
SELECT nodes.add_subscription('x', 'rome', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'rome');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'london');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'paris', 'oslo');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'oslo', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'bergen', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('orders', 'london', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('oslo', 'london', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription(repeat('x', 64), 'london', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', '{a.b.c}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', ARRAY['"open']);
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', '{""}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', '{NULL}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', options => '{"colour": "blue"}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', options => '{"slot_name": "mine"}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', options => '{"binary": "maybe"}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', options => '{"origin": "here"}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', options => '{"publish": "insert, upsert"}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', options => '{"publish": ["insert"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', options => '["binary"]');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('x', 'london', 'paris', options => '{"synchronous_commit": "sometimes"}');
\echo :LAST_ERROR_SQLSTATE

--
-- Foreign schemas; whether an option exists, the server that gets it says
--
SELECT nodes.add_foreign_schema('stock', node => 'london', remote_schema => 'inventory', on_node => 'paris');
SELECT nodes.add_foreign_schema('prices', 'london', tables => '{list,rebates}', on_node => 'oslo', writable => false,
    options => '{"fetch_size": 1000, "async_capable": true}', public => true, name => 'price list');
SELECT name, kind, "from", "to", state, spec - 'roles' AS spec FROM links WHERE kind = 'foreign';
SELECT DISTINCT spec->'roles' = jsonb_build_array(current_user) AS own_mapping FROM links WHERE kind = 'foreign';
SELECT nodes.add_foreign_schema('x', 'rome', on_node => 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', on_node => 'rome');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', on_node => 'london');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('list', 'london', on_node => 'paris', name => 'price list');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('stock', 'bergen', on_node => 'paris', name => 'more stock');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('', 'london', on_node => 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', '', on_node => 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', on_node => 'paris', tables => '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', on_node => 'paris', name => '');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', on_node => 'paris', options => '{"host": "192.0.2.9"}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', on_node => 'paris', options => '{"password": "hunter2"}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', on_node => 'paris', options => '{"updatable": null}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('x', 'london', on_node => 'paris', options => '{"updatable": false, "colour": "blue"}');

--
-- Changing
--
SELECT nodes.alter_link('orders', tables => '{orders}', options => '{"publish": "insert"}');
SELECT nodes.alter_link('oslo', slot => false);
SELECT nodes.alter_link('stock', tables => '{items}', writable => false, public => true, roles => '{alice,bob}',
    options => '{"fetch_size": 10}');
SELECT nodes.alter_link('feed');
SELECT name, spec FROM links WHERE name IN ('orders', 'oslo', 'stock', 'feed');
SELECT nodes.alter_link('ordres', tables => '{orders}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('oslo', tables => '{orders}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('oslo', options => '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('orders', writable => true);
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('orders', roles => '{alice}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('stock', slot => true);
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('orders', tables => '{a.b.c}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('orders', options => '{"colour": "blue"}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('stock', tables => '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('stock', roles => '{alice,NULL}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('stock', options => '{"port": 5433}');
\echo :LAST_ERROR_SQLSTATE

--
-- Pausing
--
SELECT nodes.pause_link('orders');
SELECT name, state FROM links WHERE name = 'orders';
SELECT nodes.resync('orders');
SELECT nodes.resume_link('orders');
SELECT name, state FROM links WHERE name = 'orders';
SELECT nodes.resync('oslo');
SELECT nodes.pause_link('oslo');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.pause_link('stock');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.resume_link('stock');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.pause_link('ordres');
SELECT nodes.resync('ordres');
\echo :LAST_ERROR_SQLSTATE

--
-- Removing; the name is free at once
--
SELECT nodes.remove_link('orders');
SELECT nodes.remove_link('stock', keep_data => false);
SELECT nodes.remove_link('orders');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_link('orders', tables => '{orders}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_subscription('orders', 'london', 'paris', '{orders}');
SELECT nodes.add_foreign_schema('stock', 'bergen', on_node => 'paris', name => 'new stock');
SELECT nodes.remove_link('oslo');
SELECT nodes.add_standby('oslo', 'london');
SELECT name, kind, "from", "to", state, keep FROM links;

--
-- Without a second node it is this server: found by asking, so it must be registered
--
\set VERBOSITY terse
SELECT FROM nodes.add_node('silent', 'host=127.0.0.1 port=1');
SELECT FROM nodes.remove_node('bergen', cascade => true);
SET pg_nodes.connect_timeout = 100;
SELECT nodes.add_subscription('here', 'london', tables => '{orders}');
\echo :LAST_ERROR_SQLSTATE
RESET pg_nodes.connect_timeout;
SELECT format('host=%s port=%s dbname=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
              current_setting('port'), current_database(), current_user) AS this_server \gset
SELECT FROM nodes.add_node('here', :'this_server');
SELECT nodes.add_subscription('here', 'london', tables => '{orders}');
SELECT nodes.add_subscription('itself', 'here', tables => '{orders}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('empty', 'london');
CREATE SCHEMA crowded;
CREATE TABLE crowded.items (id integer);
CREATE VIEW crowded.more AS SELECT * FROM crowded.items;
\set VERBOSITY default
SELECT nodes.add_foreign_schema('crowded', 'london');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('crowded', 'london', on_node => 'here');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_foreign_schema('crowded', 'london', on_node => 'silent');

DROP VIEW links;
DROP SCHEMA crowded CASCADE;
DROP EXTENSION pg_nodes;
