-- What runs on a primary that is to hand over, see nodes_plan::switchover::Traffic.
-- $1: the slot by which it would follow.
SELECT json_build_object(
  'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'follows', pg_is_in_recovery() AND current_setting('primary_slot_name') = $1,
  'transactions', coalesce(
    (SELECT json_agg(json_build_object('pid', pid, 'role', coalesce(usename::text, usesysid::text),
                                       'seconds', extract(epoch FROM clock_timestamp() - xact_start))
                     ORDER BY xact_start)
     FROM pg_stat_activity
     -- One that is just connecting has no role yet.
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
       AND usesysid IS NOT NULL),
    '[]'),
  'copies', coalesce(
    (SELECT json_agg(coalesce(nullif(application_name, ''), usename))
     FROM pg_stat_progress_basebackup JOIN pg_stat_replication USING (pid)), '[]'),
  'senders', coalesce(
    (SELECT json_agg(json_build_object(
       'name', application_name,
       'behind', CASE WHEN pg_is_in_recovery() THEN 0
                      ELSE greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn), 0)::bigint END))
     FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')), '[]'))
