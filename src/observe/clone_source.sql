-- What a superuser must know of a primary to clone it, as one JSON document for apply::clone: what
-- it keeps outside its data directory, and which settings a copy may not take over.
WITH s AS MATERIALIZED (
  SELECT json_object_agg(name, setting) AS by_name FROM pg_show_all_settings()
), place AS (
  SELECT by_name ->> 'data_directory' || '/' AS data, by_name ->> 'config_file' AS config,
    by_name ->> 'hba_file' AS hba, by_name ->> 'ident_file' AS ident,
    by_name ->> 'log_directory' AS log FROM s
), files AS MATERIALIZED (
  SELECT name, setting, seqno FROM pg_file_settings
  WHERE applied AND sourcefile NOT LIKE '%/postgresql.auto.conf'
)
SELECT json_build_object(
  'version', current_setting('server_version_num')::integer,
  'wal_level', by_name ->> 'wal_level',
  -- A file outside the data directory does not come with the copy.
  'files', (
    SELECT coalesce(json_object_agg(name, text) FILTER (WHERE NOT starts_with(path, data)), '{}')
    FROM (VALUES
      ('postgresql.conf', config, (
        SELECT string_agg(format(E'%s = ''%s''\n', name,
                          replace(replace(setting, '\', '\\'), '''', '''''')), '' ORDER BY seqno)
        FROM files WHERE name NOT IN
          ('data_directory', 'hba_file', 'ident_file', 'external_pid_file'))),
      ('pg_hba.conf', hba, pg_read_file(hba)),
      ('pg_ident.conf', ident, pg_read_file(ident))) file (name, path, text)),
  'names_data_directory', EXISTS (SELECT FROM files WHERE name = 'data_directory')
    AND starts_with(config, data),
  'hba_outside', NOT starts_with(hba, data),
  'ident_outside', NOT starts_with(ident, data),
  'pid_file', coalesce(by_name ->> 'external_pid_file', '') <> '',
  'log_outside', starts_with(log, '/'),
  'recovery_targets', (
    SELECT coalesce(json_agg(name), '[]') FROM json_each_text(by_name) t (name, setting)
    WHERE name IN ('recovery_target', 'recovery_target_lsn', 'recovery_target_name',
                   'recovery_target_time', 'recovery_target_xid') AND setting <> ''),
  'tablespaces', (
    SELECT coalesce(json_agg(location), '[]')
    FROM (SELECT pg_tablespace_location(oid) AS location FROM pg_tablespace) each
    WHERE starts_with(location, '/')),
  -- What is copied; that of no place of its own is in the data directory.
  'sizes', (
    SELECT json_object_agg(location, bytes)
    FROM (SELECT pg_tablespace_location(oid) AS location, sum(pg_tablespace_size(oid)) AS bytes
          FROM pg_tablespace GROUP BY 1) each)
) FROM s, place
