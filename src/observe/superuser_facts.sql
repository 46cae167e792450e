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
                     'sync_replication_slots', 'synchronized_standby_slots', 'synchronous_standby_names')
      ORDER BY name, seqno DESC) last),
  'streaming', (
    SELECT coalesce(json_agg(DISTINCT a.application_name), '[]')
    FROM pg_stat_get_wal_senders() w CROSS JOIN LATERAL pg_stat_get_activity(w.pid) a
    WHERE w.state = 'streaming'),
  'passfile', (SELECT CASE WHEN NOT isdir THEN :passfile END FROM files WHERE name = 'pg_nodes.passfile'),
  'passfile_unfinished', (
    SELECT coalesce(NOT isdir, false) FROM files WHERE name = 'pg_nodes.passfile.new'),
  'passfile_blocked', (SELECT coalesce(bool_or(isdir), false) FROM files),
  -- end
  -- with history
  -- That of the timeline which it writes; what is no ASCII in it comes as numbers.
  'history', CASE WHEN NOT pg_is_in_recovery() THEN (
    SELECT encode(pg_read_binary_file('pg_wal/' || timeline || '.history', 0, 1000000, true), 'escape')
    FROM (SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS timeline) t) END,
  -- end
  'conninfos', (SELECT coalesce(json_object_agg(subname, subconninfo), '{}')
                FROM pg_subscription
                WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())),
  -- Tables that were not copied have no position.
  'reached', (SELECT coalesce(json_object_agg(s.subname, json_build_object(
                'applied', nullif(o.remote_lsn, '0/0'), 'copied', copied.lsn)), '{}')
              FROM pg_subscription s
              LEFT JOIN pg_show_replication_origin_status() o ON o.external_id = 'pg_' || s.oid
              CROSS JOIN LATERAL (
                SELECT CASE WHEN bool_and(r.srsublsn IS NOT NULL) THEN min(r.srsublsn) END AS lsn
                FROM pg_subscription_rel r
                WHERE r.srsubid = s.oid AND r.srsubstate IN ('s', 'r')) copied
              WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
)
