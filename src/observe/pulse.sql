-- A heartbeat: what changes by itself, as one JSON document, for nodes_plan::pulse::Pulse. Rows
-- of slots and senders go as they are, whatever columns the version has. Where a view is little
-- more than a function, the function is asked: to plan the views costs more than to run them.
SELECT json_build_object(
  'version', current_setting('server_version_num')::integer,
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'in_recovery', r.in_recovery,
  'timeline', CASE WHEN r.in_recovery
    THEN coalesce((SELECT received_tli FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL),
                  (SELECT timeline_id FROM pg_control_checkpoint()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END,
  'started', extract(epoch FROM pg_postmaster_start_time())::float8,
  'boot_id', current_setting('pg_nodes.boot_id', true),
  'wal_free', nullif(current_setting('pg_nodes.wal_free_bytes', true), '')::bigint,
  'database', current_database(),
  'lsn', CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
  'received', pg_last_wal_receive_lsn(),
  'replay_age', CASE WHEN r.in_recovery
    THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END,
  'replay_paused', CASE WHEN r.in_recovery THEN pg_is_wal_replay_paused() ELSE false END,
  'slots', (SELECT coalesce(json_agg(s), '[]') FROM pg_get_replication_slots() s),
  'senders', (
    SELECT coalesce(json_agg(json_build_object(
      'pid', w.pid, 'state', w.state, 'sent_lsn', w.sent_lsn, 'flush_lsn', w.flush_lsn,
      'replay_lsn', w.replay_lsn, 'sync_state', w.sync_state,
      'replay_lag', extract(epoch FROM w.replay_lag)::float8)), '[]')
    FROM pg_stat_get_wal_senders() w),
  'synchronous', CASE WHEN current_setting('synchronous_standby_names') <> '' AND NOT r.in_recovery
    THEN (
      SELECT json_build_object(
        'names', current_setting('synchronous_standby_names'), 'waiting', count(*),
        'longest', max(extract(epoch FROM clock_timestamp() - a.state_change))::float8)
      FROM pg_stat_get_activity(NULL) a WHERE a.wait_event = 'SyncRep') END,
  'receiver', (
    SELECT json_build_object('status', status, 'slot_name', slot_name,
                             'sender_host', sender_host, 'sender_port', sender_port)
    FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL),
  'subscriptions', (
    SELECT coalesce(json_agg(json_build_object(
      'name', s.subname,
      'enabled', s.subenabled,
      'running', w.running,
      'copying', w.copying,
      'tables', t.tables,
      'ready', t.ready,
      'copied_rows', w.copied_rows,
      'copied_bytes', w.copied_bytes,
      'apply_errors', e.apply_error_count,
      'sync_errors', e.sync_error_count,
      'received_lsn', w.received_lsn,
      'latest_end_lsn', w.latest_end_lsn,
      'silent_for', w.silent_for)), '[]')
    FROM pg_subscription s
    CROSS JOIN LATERAL pg_stat_get_subscription_stats(s.oid) e
    CROSS JOIN LATERAL (
      SELECT count(*) AS tables, count(*) FILTER (WHERE srsubstate IN ('r', 's')) AS ready
      FROM pg_subscription_rel WHERE srsubid = s.oid) t
    CROSS JOIN LATERAL (
      SELECT count(*) FILTER (WHERE a.relid IS NULL) > 0 AS running,
        count(*) FILTER (WHERE a.relid IS NOT NULL) AS copying,
        coalesce(sum(p.param3), 0)::bigint AS copied_rows,
        coalesce(sum(p.param1), 0)::bigint AS copied_bytes,
        max(a.received_lsn) FILTER (WHERE a.relid IS NULL) AS received_lsn,
        max(a.latest_end_lsn) FILTER (WHERE a.relid IS NULL) AS latest_end_lsn,
        extract(epoch FROM clock_timestamp() - max(a.last_msg_receipt_time))::float8 AS silent_for
      -- Asked for a single subscription, it tells of the first process alone.
      FROM pg_stat_get_subscription(NULL) a
      LEFT JOIN pg_stat_get_progress_info('COPY') p ON p.pid = a.pid AND a.relid IS NOT NULL
      WHERE a.subid = s.oid) w
    WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
) FROM (SELECT pg_is_in_recovery() AS in_recovery) r
