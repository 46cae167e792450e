-- What only a superuser may know of its server, as one JSON document. The passfile is read as
-- bytes: what others put there need not be text in this database. Sections, from "with" to "end",
-- are left out where no link needs them.
WITH files AS (
  SELECT name, (pg_stat_file(name, true)).isdir
  FROM unnest(ARRAY['pg_nodes.passfile', 'pg_nodes.passfile.new']) name
)
SELECT json_build_object(
  -- with standby
  'file_settings', (
    SELECT coalesce(json_object_agg(name, setting), '{}') FROM (
      SELECT DISTINCT ON (name) name, setting FROM pg_file_settings
      WHERE name IN ('primary_conninfo', 'primary_slot_name', 'hot_standby_feedback',
                     'sync_replication_slots', 'synchronized_standby_slots')
      ORDER BY name, seqno DESC) last),
  'passfile', (SELECT CASE WHEN NOT isdir THEN :passfile END FROM files WHERE name = 'pg_nodes.passfile'),
  'passfile_unfinished', (
    SELECT coalesce(NOT isdir, false) FROM files WHERE name = 'pg_nodes.passfile.new'),
  'passfile_blocked', (SELECT coalesce(bool_or(isdir), false) FROM files),
  -- end
  'conninfos', (SELECT coalesce(json_object_agg(subname, subconninfo), '{}')
                FROM pg_subscription
                WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())),
  -- Of those that receive nothing now: those of the others change all the time.
  'applied', (SELECT coalesce(json_object_agg(s.subname, o.remote_lsn), '{}')
              FROM pg_subscription s
              JOIN pg_show_replication_origin_status() o ON o.external_id = 'pg_' || s.oid
              WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND NOT EXISTS (SELECT FROM pg_stat_get_subscription(s.oid) w WHERE w.pid IS NOT NULL))
)
