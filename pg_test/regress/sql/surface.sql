-- What SQL sees: everything is described, nothing is granted to PUBLIC, all belongs to the extension.
\pset format unaligned
CREATE EXTENSION pg_nodes;

-- functions and procedures
SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
  FROM pg_proc p WHERE pronamespace = 'nodes'::regnamespace ORDER BY proname COLLATE "C";
SELECT proname AS name, prokind AS kind, provolatile AS volatility, proparallel AS parallel, proisstrict AS strict,
       prosecdef AS definer, lanname AS language, proconfig AS config
  FROM pg_proc JOIN pg_language l ON l.oid = prolang
 WHERE pronamespace = 'nodes'::regnamespace ORDER BY proname COLLATE "C";
SELECT proname AS name, obj_description(oid, 'pg_proc') AS description
  FROM pg_proc WHERE pronamespace = 'nodes'::regnamespace ORDER BY proname COLLATE "C";

-- tables, views and sequences
SELECT relname AS name, relkind AS kind, obj_description(oid, 'pg_class') AS description
  FROM pg_class WHERE relnamespace = 'nodes'::regnamespace AND relkind IN ('r', 'v', 'S') ORDER BY relname COLLATE "C";
SELECT relname AS relation, string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) AS columns
  FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
 WHERE relnamespace = 'nodes'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0
 GROUP BY relname ORDER BY relname COLLATE "C";

-- nothing lacks a description
SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
 WHERE relnamespace = 'nodes'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0
   AND col_description(attrelid, attnum) IS NULL;
SELECT relname FROM pg_class
 WHERE relnamespace = 'nodes'::regnamespace AND relkind IN ('r', 'v') AND obj_description(oid, 'pg_class') IS NULL;
SELECT obj_description(oid, 'pg_namespace') AS schema FROM pg_namespace WHERE nspname = 'nodes';
SELECT obj_description(oid, 'pg_extension') AS extension FROM pg_extension WHERE extname = 'pg_nodes';

-- nobody but the owner may do or read anything …
CREATE ROLE regress_nodes_nobody;
SELECT proname FROM pg_proc
 WHERE pronamespace = 'nodes'::regnamespace AND has_function_privilege('regress_nodes_nobody', oid, 'EXECUTE');
SELECT relname FROM pg_class
 WHERE relnamespace = 'nodes'::regnamespace AND relkind IN ('r', 'v')
   AND (has_table_privilege('regress_nodes_nobody', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        OR has_any_column_privilege('regress_nodes_nobody', oid, 'SELECT, INSERT, UPDATE, REFERENCES'));
SELECT sequencename FROM pg_sequences
 WHERE schemaname = 'nodes'
   AND has_sequence_privilege('regress_nodes_nobody', format('nodes.%I', sequencename), 'USAGE, SELECT, UPDATE');
SELECT has_schema_privilege('regress_nodes_nobody', 'nodes', 'USAGE') AS usage,
       has_schema_privilege('regress_nodes_nobody', 'nodes', 'CREATE') AS create;
-- … and pg_monitor may look
SELECT proname AS may_call FROM pg_proc
 WHERE pronamespace = 'nodes'::regnamespace AND has_function_privilege('pg_monitor', oid, 'EXECUTE')
 ORDER BY proname COLLATE "C";
SELECT relname AS relation, has_table_privilege('pg_monitor', oid, 'SELECT') AS may_read,
       has_table_privilege('pg_monitor', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') AS may_change
  FROM pg_class WHERE relnamespace = 'nodes'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname COLLATE "C";
SELECT has_schema_privilege('pg_monitor', 'nodes', 'USAGE') AS usage,
       has_schema_privilege('pg_monitor', 'nodes', 'CREATE') AS create;

-- grants are to pg_monitor alone
SELECT DISTINCT grantee::regrole, privilege_type
  FROM (SELECT relacl AS acl, relowner AS owner FROM pg_class WHERE relnamespace = 'nodes'::regnamespace
        UNION ALL SELECT proacl, proowner FROM pg_proc WHERE pronamespace = 'nodes'::regnamespace
        UNION ALL SELECT nspacl, nspowner FROM pg_namespace WHERE nspname = 'nodes') objects,
       aclexplode(acl)
 WHERE grantee <> owner ORDER BY 1, 2;

-- everything in the schema belongs to the extension, and the extension has nothing elsewhere
SELECT c.relname FROM pg_class c
 WHERE relnamespace = 'nodes'::regnamespace AND relkind IN ('r', 'v')
   AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e');
SELECT p.proname FROM pg_proc p
 WHERE pronamespace = 'nodes'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e');
SELECT i.type, i.identity
  FROM pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) i
 WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_nodes')
   AND i.schema IS DISTINCT FROM 'nodes' AND i.type <> 'type'
 ORDER BY 1, 2;
SELECT e.nspname AS schema, extrelocatable AS relocatable FROM pg_extension JOIN pg_namespace e ON e.oid = extnamespace
 WHERE extname = 'pg_nodes';

-- pg_dump takes along every table and every sequence of one
SELECT c.relname AS not_dumped FROM pg_class c, pg_extension
 WHERE c.relnamespace = 'nodes'::regnamespace AND c.relkind IN ('r', 'S')
   AND extname = 'pg_nodes' AND NOT c.oid = ANY (extconfig);

-- settings
SELECT name, setting, unit, context, vartype, min_val, max_val, short_desc, extra_desc
  FROM pg_settings WHERE name LIKE 'pg_nodes.%' ORDER BY name;
SET pg_nodes.connect_timeout = '2s';
SHOW pg_nodes.connect_timeout;
\set VERBOSITY sqlstate
SET pg_nodes.connect_timeout = 0;
\set VERBOSITY default
SET pg_nodes.connect_timeuot = 0;

-- the rules by which plan() decides
SELECT kind, purpose, rule, applies_when FROM nodes.rules();
SELECT rule FROM nodes.rules() GROUP BY rule HAVING count(*) > 1;

-- as pg_monitor: looking works, changing does not
GRANT pg_monitor TO regress_nodes_nobody;
SET ROLE regress_nodes_nobody;
SELECT count(*) FROM nodes.status;
SELECT count(*) FROM nodes.link_status;
SELECT count(*) FROM nodes.slots;
SELECT count(*) FROM nodes.events;
SELECT count(*) FROM nodes.plan();
SELECT nodes.topology();
SELECT nodes.add_node('paris', 'host=192.0.2.1', password => 'p');
CALL nodes.apply();
TABLE nodes.secret;
RESET ROLE;

DROP EXTENSION pg_nodes;
DROP ROLE regress_nodes_nobody;
