-- Everything that any role may know of its server, as one JSON document. $1 says what matters
-- (nodes_plan::desired::Interest). Only columns that PostgreSQL 15 to 18 share are named; the
-- subscription's options differ by version and are put in by observe.rs. Where a view is little
-- more than a function, the function is asked: to plan the views costs more than to run them.
-- For the same reason sections, from "with" to "end", are left out where the node has nothing that
-- they could find (observe/section.rs); 'present' says whether that was so in the same snapshot.
WITH interest AS (
  SELECT ARRAY(SELECT json_array_elements_text($1::json->'schemas')) AS schemas,
         ARRAY(SELECT json_array_elements_text($1::json->'roles')) AS roles,
         ($1::json->>'all_tables')::boolean AS all_tables,
         ($1::json->>'subscriber')::boolean AS subscriber,
         ($1::json->>'foreign')::boolean AS foreign_schemas,
         $1::json->>'marks' AS marks
), me AS (
  SELECT rolsuper, rolreplication FROM pg_roles WHERE rolname = current_user
), grantees AS (
  -- Roles whose rights matter: those of links, and those that have a mapping from a time when
  -- a link named them.
  SELECT 0::oid AS oid, NULL::name AS rolname
  UNION ALL
  SELECT r.oid, r.rolname FROM pg_roles r, interest i
  WHERE r.rolname = ANY (i.roles)
  -- with foreign
    OR r.oid IN (SELECT m.umuser FROM pg_user_mappings m)
  -- end
), schemas AS (
  -- What bears a mark of ours may have been renamed.
  SELECT n.oid, n.nspname, n.nspowner, n.nspacl, d.description, starts_with(d.description, i.marks) AS marked
  FROM interest i
  CROSS JOIN pg_namespace n
  LEFT JOIN pg_description d
    ON d.objoid = n.oid AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0
  WHERE n.nspname = ANY (i.schemas) OR starts_with(d.description, i.marks)
), wanted AS (
  SELECT c.oid, c.relname, c.relowner, c.relacl, c.relkind, c.relispartition, c.relreplident,
    c.reltuples, c.relpages, n.nspname, i.subscriber
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN interest i
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND (n.oid IN (SELECT oid FROM schemas)
         OR (n.nspname, c.relname) IN (
              SELECT t->>'schema', t->>'name' FROM json_array_elements($1::json->'tables') t)
         OR (i.all_tables AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
             AND n.nspname NOT IN ('pg_catalog', 'information_schema')))
), relations AS (
  SELECT json_build_object(
    'name', json_build_object('schema', w.nspname, 'name', w.relname),
    'owner', pg_get_userbyid(w.relowner),
    'kind', w.relkind,
    'is_partition', w.relispartition,
    'rows', greatest(w.reltuples, 0)::bigint,
    'bytes', w.relpages * current_setting('block_size')::bigint,
    'of_extension', EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                            AND d.objid = w.oid AND d.deptype = 'e'),
    'replica_identity', CASE w.relreplident
      WHEN 'f' THEN true
      WHEN 'd' THEN EXISTS (SELECT FROM pg_index x WHERE x.indrelid = w.oid AND x.indisprimary)
      WHEN 'i' THEN EXISTS (SELECT FROM pg_index x WHERE x.indrelid = w.oid AND x.indisreplident)
      ELSE false END,
    'owned', pg_has_role(w.relowner, 'USAGE'),
    -- Its size takes a lock, so it is asked only before a subscription fills the table.
    'filled', CASE WHEN w.subscriber AND w.relkind IN ('r', 'p') AND NOT EXISTS (
        SELECT FROM pg_subscription_rel r WHERE r.srrelid = w.oid
          OR r.srrelid IN (SELECT t.relid FROM pg_partition_tree(w.oid) t))
      THEN pg_relation_size(w.oid) > 0 OR EXISTS (
        SELECT FROM pg_partition_tree(w.oid) t WHERE pg_relation_size(t.relid) > 0)
      ELSE false END,
    -- with foreign
    'server', s.srvname,
    'remote', CASE WHEN s.oid IS NOT NULL THEN (
      SELECT json_build_object(
        'schema', coalesce(max(o.option_value) FILTER (WHERE o.option_name = 'schema_name'), w.nspname::text),
        'name', coalesce(max(o.option_value) FILTER (WHERE o.option_name = 'table_name'), w.relname::text))
      FROM pg_options_to_table(f.ftoptions) o) END,
    'options', (
      SELECT coalesce(json_object_agg(o.option_name, o.option_value), '{}')
      FROM pg_options_to_table(f.ftoptions) o
      WHERE o.option_name NOT IN ('schema_name', 'table_name')),
    'grants', (
      SELECT coalesce(json_agg(json_build_object(
        'role', g.rolname, 'privilege', a.privilege_type)), '[]')
      FROM aclexplode(w.relacl) a JOIN grantees g ON g.oid = a.grantee
      WHERE w.relkind = 'f' AND a.grantor = w.relowner),
    -- end
    'columns', (
      SELECT coalesce(json_agg(json_build_object(
        'name', a.attname,
        'type', format_type(a.atttypid, a.atttypmod),
        'not_null', a.attnotnull,
        -- with foreign
        'remote', (SELECT o.option_value FROM pg_options_to_table(a.attfdwoptions) o
                   WHERE o.option_name = 'column_name'),
        -- end
        'generated', a.attgenerated <> '') ORDER BY a.attnum), '[]')
      FROM pg_attribute a WHERE a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped)
  ) AS relation
  FROM wanted w
  -- with foreign
  LEFT JOIN pg_foreign_table f ON f.ftrelid = w.oid
  LEFT JOIN pg_foreign_server s ON s.oid = f.ftserver
  -- end
-- with publications
), publications AS (
  SELECT json_build_object(
    'name', p.pubname,
    'comment', obj_description(p.oid, 'pg_publication'),
    'tables', (
      SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname)), '[]')
      FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid),
    'filtered', (
      SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname)), '[]')
      FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)),
    'schemas', (
      SELECT coalesce(json_agg(n.nspname), '[]')
      FROM pg_publication_namespace s JOIN pg_namespace n ON n.oid = s.pnnspid
      WHERE s.pnpubid = p.oid),
    'all_tables', p.puballtables,
    'published', (
      SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname)), '[]')
      FROM pg_get_publication_tables(p.pubname) t JOIN pg_class c ON c.oid = t.relid
      JOIN pg_namespace n ON n.oid = c.relnamespace),
    'options', json_build_object(
      'publish', concat_ws(', ',
        CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
        CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
      'publish_via_partition_root', p.pubviaroot::text)
  ) AS publication
  FROM pg_publication p
-- end
-- with subscriptions
), subscriptions AS (
  SELECT json_build_object(
    'oid', s.oid::bigint,
    'name', s.subname,
    'comment', obj_description(s.oid, 'pg_subscription'),
    'enabled', s.subenabled,
    'slot', s.subslotname,
    'publications', to_json(s.subpublications),
    'options', :subscription_options,
    'tables', (
      SELECT coalesce(json_object_agg(r.srrelid, json_build_object(
        'table', json_build_object('schema', n.nspname, 'name', c.relname),
        'state', r.srsubstate)), '{}')
      FROM pg_subscription_rel r JOIN pg_class c ON c.oid = r.srrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.srsubid = s.oid)
  ) AS subscription
  FROM pg_subscription s
  WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
-- end
-- with foreign
), servers AS (
  SELECT json_build_object(
    'name', s.srvname,
    'comment', obj_description(s.oid, 'pg_foreign_server'),
    'options', (SELECT coalesce(json_object_agg(o.option_name, o.option_value), '{}')
                FROM pg_options_to_table(s.srvoptions) o),
    'mappings', (
      SELECT coalesce(json_agg(json_build_object(
        'role', CASE WHEN m.umuser <> 0 THEN m.usename END,
        'options', (
          SELECT CASE WHEN me.rolsuper THEN coalesce(pairs, '[]') ELSE pairs END
          FROM (SELECT json_agg(json_build_array(o.option_name, o.option_value)) AS pairs
                FROM pg_options_to_table(m.umoptions) o) p))), '[]')
      FROM pg_user_mappings m WHERE m.srvid = s.oid),
    'tables', (
      SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname)), '[]')
      FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE f.ftserver = s.oid)
  ) AS server
  FROM pg_foreign_server s
  JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'postgres_fdw'
  CROSS JOIN me
-- end
)
SELECT json_build_object(
  'present', (:present),
  'version', current_setting('server_version_num')::integer,
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'in_recovery', pg_is_in_recovery(),
  -- A primary may not have written its control file since it was promoted.
  'timeline', CASE WHEN pg_is_in_recovery()
    THEN (SELECT timeline_id FROM pg_control_checkpoint())
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END,
  'lsn', CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END,
  'database', current_database(),
  'role', current_user,
  'superuser', me.rolsuper,
  'can_replicate', me.rolsuper OR me.rolreplication,
  'can_create', has_database_privilege(current_database(), 'CREATE'),
  'can_use_fdw', (SELECT has_foreign_data_wrapper_privilege(oid, 'USAGE')
                  FROM pg_foreign_data_wrapper WHERE fdwname = 'postgres_fdw'),
  'can_create_subscription', me.rolsuper OR (
    has_database_privilege(current_database(), 'CREATE')
    AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'pg_create_subscription'
                AND pg_has_role(r.oid, 'USAGE'))),
  'settings', (
    SELECT json_object_agg(name, setting) FROM pg_show_all_settings() WHERE name IN (
      'data_directory', 'wal_level', 'max_wal_senders', 'max_replication_slots', 'max_active_replication_origins',
      'max_logical_replication_workers', 'max_sync_workers_per_subscription',
      'max_worker_processes', 'max_parallel_apply_workers_per_subscription', 'max_connections',
      'superuser_reserved_connections', 'reserved_connections', 'output_plugin_libraries', 'wal_retrieve_retry_interval',
      'default_transaction_read_only', 'pg_nodes.superseded_by', 'allow_alter_system', 'primary_conninfo', 'primary_slot_name',
      'hot_standby_feedback', 'sync_replication_slots', 'synchronized_standby_slots',
      'synchronous_standby_names')),
  'slots', (
    SELECT coalesce(json_agg(json_build_object(
      'name', slot_name, 'kind', slot_type, 'active', active, 'wal_status', wal_status,
      'failover', coalesce((to_jsonb(s)->>'failover')::boolean, false),
      'synced', coalesce((to_jsonb(s)->>'synced')::boolean, false))), '[]')
    FROM pg_get_replication_slots() s),
  'walsenders', (SELECT count(*) FROM pg_stat_get_wal_senders()),
  'background_workers', (
    SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type NOT IN (
      'client backend', 'autovacuum launcher', 'autovacuum worker', 'startup', 'walreceiver',
      'walsender', 'walwriter', 'checkpointer', 'background writer', 'archiver',
      'slotsync worker', 'walsummarizer', 'standalone backend', 'io worker')),
  'usage', (
    SELECT json_build_object(
      'connections', (SELECT count(*) FROM pg_stat_get_activity(NULL)
                      WHERE backend_type = 'client backend'),
      'logical_workers', coalesce(sum(workers), 0),
      'sync_workers', coalesce(max(copying), 0),
      'parallel_workers', coalesce(max(parallel), 0),
      'origins', (SELECT count(*) FROM pg_replication_origin))
    FROM (
      SELECT count(*) AS workers, count(*) FILTER (WHERE w.relid IS NOT NULL) AS copying,
        count(*) FILTER (WHERE to_jsonb(w)->>'leader_pid' IS NOT NULL) AS parallel
      FROM pg_stat_get_subscription(NULL) w WHERE w.pid IS NOT NULL GROUP BY w.subid) each),
  -- with publications
  'publications', (SELECT coalesce(json_agg(publication), '[]') FROM publications),
  -- end
  -- with subscriptions
  'subscriptions', (SELECT coalesce(json_agg(subscription), '[]') FROM subscriptions),
  -- end
  'subscription_oids', (SELECT coalesce(json_agg(oid::bigint), '[]') FROM pg_subscription),
  'fdw_available', EXISTS (SELECT FROM pg_extension WHERE extname = 'postgres_fdw')
    OR i.foreign_schemas AND EXISTS (SELECT FROM pg_available_extensions() WHERE name = 'postgres_fdw'),
  'fdw_comment', (SELECT coalesce(obj_description(oid, 'pg_extension'), '')
                  FROM pg_extension WHERE extname = 'postgres_fdw'),
  'public_schema', EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public'),
  -- with foreign
  'servers', (SELECT coalesce(json_agg(server), '[]') FROM servers),
  -- end
  'schemas', (
    SELECT coalesce(json_agg(json_build_object(
      'name', n.nspname,
      'comment', n.description,
      'owner', pg_get_userbyid(n.nspowner),
      'owned', pg_has_role(n.nspowner, 'USAGE'),
      'grants', (
        SELECT coalesce(json_agg(json_build_object(
          'role', g.rolname, 'privilege', a.privilege_type)), '[]')
        FROM aclexplode(n.nspacl) a JOIN grantees g ON g.oid = a.grantee
        WHERE a.grantor = n.nspowner))), '[]')
    FROM schemas n WHERE n.marked OR has_schema_privilege(n.oid, 'USAGE')),
  'relations', (SELECT coalesce(json_agg(relation), '[]') FROM relations),
  'roles', (
    SELECT coalesce(json_agg(json_build_object(
      'name', r.rolname, 'superuser', r.rolsuper, 'replication', r.rolreplication)), '[]')
    FROM pg_roles r WHERE r.rolname = ANY (i.roles))
) FROM me, interest i
