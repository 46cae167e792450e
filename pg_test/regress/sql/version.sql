-- The extension installs into its own schema and says its version.
CREATE EXTENSION pg_nodes;
SELECT extversion, nspname AS schema, extrelocatable AS relocatable
  FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
 WHERE extname = 'pg_nodes';
DROP EXTENSION pg_nodes;
