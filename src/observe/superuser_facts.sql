-- What only a superuser may know of its server, as one JSON document.
SELECT json_build_object(
  'file_settings', (
    SELECT coalesce(json_object_agg(name, setting), '{}') FROM (
      SELECT DISTINCT ON (name) name, setting FROM pg_file_settings
      WHERE name IN ('primary_conninfo', 'primary_slot_name', 'hot_standby_feedback')
      ORDER BY name, seqno DESC) last),
  'passfile', rtrim(pg_read_file('pg_nodes.passfile', 0, 100000, true), E'\n'),
  'conninfos', (SELECT coalesce(json_object_agg(subname, subconninfo), '{}')
                FROM pg_subscription
                WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
)
