-- What matters for nothing but a failover, as one JSON document for nodes_plan::failover::Readiness.
-- The name of a WAL file is its timeline and its number in two parts (XLogFileName,
-- xlog_internal.h); that of a history file is shorter, and says nothing of a backlog.
SELECT json_build_object(
  'settings', (
    SELECT json_object_agg(name, setting) FROM pg_show_all_settings() WHERE name IN (
      'max_connections', 'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions',
      'max_locks_per_transaction', 'max_replication_slots', 'wal_level', 'archive_mode',
      'hot_standby_feedback', 'recovery_min_apply_delay', 'sync_replication_slots',
      'synchronized_standby_slots')),
  'archive_failing', coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false),
  'archive_backlog', CASE WHEN NOT pg_is_in_recovery() AND length(a.last_archived_wal) >= 24 THEN (
    SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint / size
      - (('x' || substr(a.last_archived_wal, 9, 8))::bit(32)::bigint * (4294967296 / size)
         + ('x' || substr(a.last_archived_wal, 17, 8))::bit(32)::bigint) - 1
    FROM (SELECT pg_size_bytes(current_setting('wal_segment_size')) AS size) segment) END
) FROM pg_stat_get_archiver() a
