-- Nodes: what nodes.add_node() and its kin store, answer and refuse. Nothing here connects.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION pg_nodes;
CREATE VIEW registered AS
  SELECT name, conninfo, admin_conninfo, password, admin_password, state
    FROM nodes.node LEFT JOIN nodes.secret ON node = id ORDER BY id;

--
-- Registering
--
SELECT nodes.add_node('paris', 'host=192.0.2.1 dbname=app user=link');
SELECT nodes.add_node('lyon', 'postgresql://link@192.0.2.4:5433/app?sslmode=require');
SELECT nodes.add_node('nice', 'host=192.0.2.5,192.0.2.6 port=5432,5433 dbname=app target_session_attrs=read-write');
SELECT nodes.add_node('lille', 'service=lille passfile=/etc/lille.pass');
SELECT nodes.add_node('metz', 'host=192.0.2.7 dbname=app', admin_conninfo => 'host=/run/metz dbname=app');
SELECT * FROM registered;
-- the registry comes with the first node
SELECT count(*), bool_and(system_identifier = (SELECT s.system_identifier::text FROM pg_control_system() s)) AS made_here
  FROM nodes.registry;

--
-- Passwords are cut out of whatever they come in, and come back nowhere
--
SELECT nodes.add_node('brest', 'host=192.0.2.8 user=link password=hunter2');
SELECT nodes.add_node('tours', 'postgresql://link:hunter2@192.0.2.9/app');
SELECT nodes.add_node('dijon', 'host=192.0.2.10 user=link', password => 'hunter2');
SELECT nodes.add_node('reims', 'host=192.0.2.11 user=link password=hunter2',
                      admin_conninfo => 'host=/run/reims user=postgres password=hunter3');
-- the argument counts where both are given
SELECT nodes.add_node('rouen', 'host=192.0.2.12 password=hunter2', password => 'hunter4');
SELECT nodes.add_node('nancy', 'host=192.0.2.13 dbname=''my app'' password=''it\''s \\ hunter2''');
SELECT * FROM registered WHERE password IS NOT NULL;

--
-- Names are any identifier
--
SELECT nodes.add_node('we"ird; DROP TABLE x--', 'host=192.0.2.14');
SELECT nodes.add_node('Ünïcode node', 'host=192.0.2.15');
SELECT nodes.add_node('SELECT', 'host=192.0.2.16');
SELECT nodes.add_node(repeat('x', 63), 'host=192.0.2.17');
SELECT nodes.add_node('', 'host=192.0.2.18');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node(repeat('x', 64), 'host=192.0.2.18');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node(repeat('é', 32), 'host=192.0.2.18');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node(E'two\nlines', 'host=192.0.2.18');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('paris', 'host=192.0.2.18');
\echo :LAST_ERROR_SQLSTATE

--
-- Conninfos that libpq could not use
--
SELECT nodes.add_node('bad', 'host=192.0.2.18 colour=blue');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'postgresql://192.0.2.18/app?colour=blue');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=''192.0.2.18');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', '');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', '   ');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'postgresql://');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18 port=0');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18 port=65536');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18,192.0.2.19 port=5432,many');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'postgresql://192.0.2.18:nowhere/app');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=a,b,c port=1,2');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=a,b hostaddr=192.0.2.18');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18 sslmode=bogus');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18 connect_timeout=abc');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18 keepalives_idle=often');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18 target_session_attrs=standbye');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18 channel_binding=maybe');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'service=elsewhere gssencmode=bogus');
\echo :LAST_ERROR_SQLSTATE
-- what only other servers know is theirs to judge
BEGIN;
SELECT nodes.add_node('good', 'service=elsewhere host=a,b port=1 sslmode=verify-full sslrootcert=/there/root.crt');
SELECT nodes.add_node('better', 'host=a,b port=1 channel_binding=require gssencmode=disable connect_timeout=3');
ROLLBACK;
SELECT nodes.add_node('bad', 'host=192.0.2.18 replication=database');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18 sslkey=link.key sslpassword=hunter2');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18', admin_conninfo => 'host=192.0.2.18 port=none');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18', admin_conninfo => '');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18', password => E'hunter2\n');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', E'host=192.0.2.18 password=\'hunt\ter2\'');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('bad', 'host=192.0.2.18', E'host=192.0.2.18 password=\'hunt\u0001er2\'');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.set_password('paris', E'hunter2\r');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_node('paris', password => E'hunter2\u0002');
\echo :LAST_ERROR_SQLSTATE
-- a password that libpq trips over is not quoted back
SELECT nodes.add_node('bad', 'host=192.0.2.18 password=''hunter2');
SELECT nodes.add_node('bad', 'host=192.0.2.18 password=secret hunter2 dbname=app');
SELECT nodes.add_node('bad', 'postgresql://link:hunt"er2%zz@192.0.2.18/app');
SELECT nodes.add_node('bad', 'postgresql://link:hunter2@192.0.2.18:port/app');
SELECT count(*) FROM nodes.node WHERE name = 'bad';

--
-- Changing
--
SELECT nodes.alter_node('paris', 'host=192.0.2.20 dbname=app user=link');
SELECT nodes.alter_node('brest', 'host=192.0.2.21 user=link');
SELECT nodes.alter_node('tours', 'host=192.0.2.22 user=link password=hunter5');
SELECT nodes.alter_node('dijon', password => 'hunter6');
SELECT nodes.alter_node('dijon', admin_conninfo => 'host=/run/dijon');
SELECT nodes.alter_node('metz', admin_conninfo => '');
SELECT nodes.alter_node('nice');
SELECT nodes.set_password('reims', 'hunter7');
SELECT nodes.set_password('rouen', NULL);
SELECT nodes.alter_node('reims', admin_conninfo => '');
SELECT nodes.set_password('nancy', '');
SELECT * FROM registered WHERE name IN ('paris', 'brest', 'tours', 'dijon', 'metz', 'nice', 'reims', 'rouen', 'nancy');
SELECT nodes.alter_node('pairs', 'host=192.0.2.20');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_node('paris', 'host=192.0.2.20 port=70000');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.alter_node('paris', '');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.set_password('pairs', 'hunter8');
\echo :LAST_ERROR_SQLSTATE

--
-- Renaming
--
SELECT nodes.rename_node('lyon', 'Lyon 2');
SELECT nodes.rename_node('Lyon 2', 'lyon');
SELECT nodes.rename_node('lyon', 'paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.rename_node('lyon', 'lyon');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.rename_node('lyon', '');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.rename_node('pairs', 'lyon');
\echo :LAST_ERROR_SQLSTATE

--
-- Removing
--
SELECT nodes.remove_node('nice');
SELECT nodes.remove_node('nice');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.remove_node('brest', cascade => true);
SELECT nodes.add_subscription('feed', 'lyon', 'paris', '{orders}');
SELECT nodes.add_standby('metz', 'paris');
SELECT nodes.remove_node('paris');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.remove_node('paris', cascade => true);
SELECT name, state FROM nodes.node WHERE state <> 'active';
SELECT name, state FROM nodes.link ORDER BY id;
SELECT nodes.add_subscription('feed', 'lyon', 'paris', '{orders}');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('paris', 'host=192.0.2.1');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.rename_node('paris', 'old paris');
SELECT nodes.remove_node('old paris', cascade => true);

--
-- A role that is not a superuser
--
GRANT USAGE ON SCHEMA nodes TO PUBLIC;
GRANT EXECUTE ON FUNCTION nodes.add_node(text, text, text, text, jsonb), nodes.alter_node(text, text, text, text, jsonb),
  nodes.set_password(text, text) TO PUBLIC;
CREATE ROLE regress_nodes_guest;
SET ROLE regress_nodes_guest;
SELECT nodes.add_node('guest', 'host=192.0.2.30 user=guest');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('guest', 'host=192.0.2.30 user=guest', password => '');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('guest', 'host=192.0.2.30 passfile=/etc/passwd', password => 'p');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('guest', 'service=guest password=p');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('guest', 'host=192.0.2.30 user=guest', admin_conninfo => 'host=192.0.2.30 sslkey=/etc/key', password => 'p');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.add_node('guest', 'host=192.0.2.30 user=guest password=p');
SELECT nodes.alter_node('guest', 'host=192.0.2.31 user=guest');
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.set_password('guest', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT nodes.set_password('guest', 'q');
SELECT nodes.remove_node('guest');
\echo :LAST_ERROR_SQLSTATE
SELECT FROM nodes.node;
\echo :LAST_ERROR_SQLSTATE
SELECT FROM nodes.secret;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT name, conninfo, registered_by, password FROM nodes.node JOIN nodes.secret ON node = id
 WHERE name = 'guest';
-- a superuser vouches for a conninfo that is given, not for what was there
SELECT nodes.alter_node('guest', password => 'r');
SELECT registered_by FROM nodes.node WHERE name = 'guest';
SELECT nodes.alter_node('guest', 'host=192.0.2.31 user=guest');
SELECT name, conninfo, registered_by, password FROM nodes.node JOIN nodes.secret ON node = id
 WHERE name = 'guest';

DROP VIEW registered;
REVOKE ALL ON SCHEMA nodes FROM PUBLIC;
DROP EXTENSION pg_nodes;
DROP ROLE regress_nodes_guest;
