-- Everything that SQL sees has a comment, and nothing of it is PUBLIC's.
SET client_min_messages = warning;
CREATE EXTENSION pg_nodes;
SELECT p.oid::regprocedure AS routine_without_comment FROM pg_proc p
WHERE p.pronamespace = 'nodes'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.oid::regclass AS relation, a.attname AS without_comment
FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'nodes'::regnamespace AND c.relkind IN ('r', 'v')
  AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)
ORDER BY 1, 2;
SELECT p.oid::regprocedure AS executable_by_public FROM pg_proc p
WHERE p.pronamespace = 'nodes'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE');
SELECT c.oid::regclass AS readable_by_public FROM pg_class c
WHERE c.relnamespace = 'nodes'::regnamespace AND c.relkind IN ('r', 'v')
  AND has_table_privilege('public', c.oid, 'SELECT');
-- What pg_monitor may.
SELECT p.proname AS executable_by_pg_monitor FROM pg_proc p
WHERE p.pronamespace = 'nodes'::regnamespace
  AND has_function_privilege('pg_monitor', p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C";
SELECT c.relname AS readable_by_pg_monitor FROM pg_class c
WHERE c.relnamespace = 'nodes'::regnamespace AND c.relkind IN ('r', 'v')
  AND has_table_privilege('pg_monitor', c.oid, 'SELECT') ORDER BY c.relname COLLATE "C";
-- An empty registry wants nothing.
SELECT * FROM nodes.plan();
SELECT rule, kind, applies_when FROM nodes.rules() WHERE purpose = 'registry';
SHOW pg_nodes.connect_timeout;
SHOW pg_nodes.step_timeout;
