-- Comments and rights of everything that SQL sees.

COMMENT ON SCHEMA nodes IS 'pg_nodes: servers and the links between them; see nodes.status, nodes.link_status and nodes.plan()';

CREATE VIEW nodes.events AS
  SELECT at, severity, node, link, kind, message, detail FROM nodes.event ORDER BY id DESC;
COMMENT ON VIEW nodes.events IS 'what changed, newest first';
COMMENT ON COLUMN nodes.events.at IS 'when it was noticed';
COMMENT ON COLUMN nodes.events.severity IS 'info, warning or critical';
COMMENT ON COLUMN nodes.events.node IS 'the node, if it is about one';
COMMENT ON COLUMN nodes.events.link IS 'the link, if it is about one';
COMMENT ON COLUMN nodes.events.kind IS 'what happened, in a word or two';
COMMENT ON COLUMN nodes.events.message IS 'what happened, in a sentence';
COMMENT ON COLUMN nodes.events.detail IS 'the facts behind it';

CREATE VIEW nodes.status AS SELECT * FROM nodes.observe_nodes();
COMMENT ON VIEW nodes.status IS 'every node as it answered last';
COMMENT ON COLUMN nodes.status.node IS 'name of the node';
COMMENT ON COLUMN nodes.status.is_self IS 'whether it is this server and this database';
COMMENT ON COLUMN nodes.status.group_id IS 'system identifier: nodes that share it are a primary and its standbys';
COMMENT ON COLUMN nodes.status.health IS 'unknown, up, suspect, down, refused, wrong_identity, or passive: this registry belongs to another server and asks nobody';
COMMENT ON COLUMN nodes.status.since IS 'since when the node is in that state';
COMMENT ON COLUMN nodes.status.role IS 'primary, standby, or cascaded: a standby of a standby';
COMMENT ON COLUMN nodes.status.version IS 'version of PostgreSQL';
COMMENT ON COLUMN nodes.status.timeline IS 'the timeline that it writes or replays';
COMMENT ON COLUMN nodes.status.lsn IS 'how far its WAL is: written on a primary, replayed on a standby';
COMMENT ON COLUMN nodes.status.lag_bytes IS 'bytes of WAL that a standby has yet to replay of what the primary of its group has written';
COMMENT ON COLUMN nodes.status.lag_seconds IS 'seconds since the last commit that a standby has replayed; 0 where nothing is left to replay';
COMMENT ON COLUMN nodes.status.walsenders IS 'connections that stream from it';
COMMENT ON COLUMN nodes.status.round_trip_ms IS 'milliseconds that the last heartbeat took';
COMMENT ON COLUMN nodes.status.round_trip_p50_ms IS 'the median of the last minutes';
COMMENT ON COLUMN nodes.status.round_trip_p99_ms IS '99 of 100 heartbeats of the last minutes took no longer';
COMMENT ON COLUMN nodes.status.connected_since IS 'since when the connection that watches it is open';
COMMENT ON COLUMN nodes.status.last_seen IS 'when it last answered';
COMMENT ON COLUMN nodes.status.error IS 'why it is not up';
COMMENT ON COLUMN nodes.status.hint IS 'what to do about it';

CREATE VIEW nodes.link_status AS SELECT * FROM nodes.observe_links();
COMMENT ON VIEW nodes.link_status IS 'every link as both its nodes see it';
COMMENT ON COLUMN nodes.link_status.link IS 'name of the link';
COMMENT ON COLUMN nodes.link_status.kind IS 'standby, foreign or subscription';
COMMENT ON COLUMN nodes.link_status.from_node IS 'where the data is';
COMMENT ON COLUMN nodes.link_status.to_node IS 'where the data goes or appears';
COMMENT ON COLUMN nodes.link_status.state IS 'initializing, copying, streaming, lagging, paused, broken, missing, drifted, waiting, up (foreign), removing, or passive: this registry belongs to another server';
COMMENT ON COLUMN nodes.link_status.since IS 'since when the link is in that state';
COMMENT ON COLUMN nodes.link_status.lag_bytes IS 'bytes of WAL that the target has yet to receive and apply';
COMMENT ON COLUMN nodes.link_status.lag_seconds IS 'seconds that the target is behind';
COMMENT ON COLUMN nodes.link_status.retained_bytes IS 'bytes of WAL that are kept for it';
COMMENT ON COLUMN nodes.link_status.time_left IS 'until its slot is lost (max_slot_wal_keep_size) or the disk is full at the present rate; the disk is known where pg_nodes is preloaded';
COMMENT ON COLUMN nodes.link_status.tables IS 'tables that it replicates';
COMMENT ON COLUMN nodes.link_status.tables_ready IS 'tables whose initial copy is done';
COMMENT ON COLUMN nodes.link_status.rows_copied IS 'rows of the copies that run now';
COMMENT ON COLUMN nodes.link_status.bytes_copied IS 'bytes of the copies that run now; of a standby that is cloned too';
COMMENT ON COLUMN nodes.link_status.rows_expected IS 'rows that these copies are to bring, by the publishers statistics';
COMMENT ON COLUMN nodes.link_status.bytes_expected IS 'size of these tables on the publisher; a copy, being text, has another; of a standby that is cloned, what is to be streamed';
COMMENT ON COLUMN nodes.link_status.copy_time_left IS 'until the initial copy, or the clone, is done at the present rate';
COMMENT ON COLUMN nodes.link_status.probe_ms IS 'foreign: milliseconds until the server answered as the mapped role';
COMMENT ON COLUMN nodes.link_status.reason IS 'why it is in that state';
COMMENT ON COLUMN nodes.link_status.hint IS 'what to do about it';

CREATE VIEW nodes.slots AS SELECT * FROM nodes.observe_slots();
COMMENT ON VIEW nodes.slots IS 'every replication slot on every node that answers';
COMMENT ON COLUMN nodes.slots.node IS 'where the slot is';
COMMENT ON COLUMN nodes.slots.slot IS 'its name';
COMMENT ON COLUMN nodes.slots.kind IS 'physical or logical';
COMMENT ON COLUMN nodes.slots.active IS 'whether somebody reads it now';
COMMENT ON COLUMN nodes.slots.wal_status IS 'reserved, extended, unreserved or lost';
COMMENT ON COLUMN nodes.slots.link IS 'the link it belongs to';
COMMENT ON COLUMN nodes.slots.owner IS 'whose it is: link, another registry, initial copy, another tool or nobody';
COMMENT ON COLUMN nodes.slots.retained_bytes IS 'bytes of WAL that it keeps';
COMMENT ON COLUMN nodes.slots.bytes_per_second IS 'how fast that grows';
COMMENT ON COLUMN nodes.slots.time_left IS 'until it is lost (max_slot_wal_keep_size) or the disk is full at the present rate; the disk is known where pg_nodes is preloaded';
COMMENT ON COLUMN nodes.slots.danger IS 'what it threatens';

CREATE VIEW nodes.headroom AS SELECT * FROM nodes.observe_headroom();
COMMENT ON VIEW nodes.headroom IS 'what the nodes have left of slots, processes and connections';
COMMENT ON COLUMN nodes.headroom.node IS 'the server';
COMMENT ON COLUMN nodes.headroom.resource IS 'what is limited';
COMMENT ON COLUMN nodes.headroom.used IS 'in use now';
COMMENT ON COLUMN nodes.headroom.needed IS 'what the registered links need in all';
COMMENT ON COLUMN nodes.headroom.max IS 'the limit';
COMMENT ON COLUMN nodes.headroom.setting IS 'the setting to raise';
COMMENT ON COLUMN nodes.headroom.hint IS 'what to do where it is tight';

COMMENT ON FUNCTION nodes.observe_nodes() IS 'what the worker saw last, or a look at every node now; behind the view nodes.status';
COMMENT ON FUNCTION nodes.observe_links() IS 'what the worker saw last, or a look at every node now; behind the view nodes.link_status';
COMMENT ON FUNCTION nodes.observe_slots() IS 'what the worker saw last, or a look at every node now; behind the view nodes.slots';
COMMENT ON FUNCTION nodes.observe_headroom() IS 'what the worker saw last, or a look at every node now; behind the view nodes.headroom';
COMMENT ON FUNCTION nodes.explain(text) IS 'why a node or link is in its state: the chain of facts, and the next action';
COMMENT ON FUNCTION nodes.test_node(text) IS
  'connects to a node now and says, factor by factor from the name of its host to its settings, what works; ok is NULL for what an earlier failure kept from being tested';
COMMENT ON FUNCTION nodes.topology() IS 'the picture: every node with the links that lead from it';
COMMENT ON FUNCTION nodes.wait_for_link(text, interval) IS 'returns when a link streams or is up, or fails when the time is over';
COMMENT ON FUNCTION nodes.wait_for_node(text, interval) IS 'returns when a node answers, or fails when the time is over';
COMMENT ON FUNCTION nodes.add_node(text, text, text, text, jsonb) IS
  'registers a server: how the other nodes reach it, how this one does if that differs, its password, and how it is watched';
COMMENT ON FUNCTION nodes.alter_node(text, text, text, text, jsonb) IS
  'changes how a node is reached; what is NULL stays, an empty admin_conninfo removes it';
COMMENT ON FUNCTION nodes.set_password(text, text) IS
  'changes the password with which everybody connects to a node; NULL for none';
COMMENT ON FUNCTION nodes.rename_node(text, text) IS
  'gives a node another name; nothing changes on any server';
COMMENT ON FUNCTION nodes.remove_node(text, boolean, boolean) IS
  'removes a node, with cascade its links too; nodes.apply() cleans the servers';
COMMENT ON FUNCTION nodes.forget_node(text) IS
  'gives up a node that will never answer again, with its links; what was made on that server stays there, passwords of others included. For superusers only';
COMMENT ON FUNCTION nodes.add_standby(text, text, boolean, boolean, jsonb, text, boolean, boolean) IS
  'says that a node should follow another by streaming replication; with synchronous, commits of a primary wait for it, see synchronous_method and synchronous_number among the options; managed => false: a failover manager makes it follow, and it and its primary are only watched';
COMMENT ON FUNCTION nodes.add_subscription(text, text, text, text[], boolean, jsonb, boolean) IS
  'says that tables of a node should be replicated to another (default: this one) by logical replication';
COMMENT ON FUNCTION nodes.add_foreign_schema(text, text, text, text[], text, boolean, jsonb, boolean, text, boolean) IS
  'says that a schema of a node should appear on another (default: this one) through postgres_fdw';
COMMENT ON FUNCTION nodes.alter_link(text, text[], jsonb, boolean, boolean, boolean, boolean, text[], boolean, jsonb) IS
  'changes a link; what is NULL stays';
COMMENT ON FUNCTION nodes.pause_link(text) IS
  'stops a subscription until nodes.resume_link(); its publisher keeps WAL meanwhile';
COMMENT ON FUNCTION nodes.resync(text) IS
  'empties the tables of a subscription on the subscriber and copies them anew, in the place of what it has missed';
COMMENT ON FUNCTION nodes.resume_link(text) IS 'lets a paused subscription go on';
COMMENT ON FUNCTION nodes.remove_link(text, boolean) IS
  'removes a link from both its nodes; with keep_data a foreign schema stays and is yours from then on';
COMMENT ON FUNCTION nodes.plan() IS
  'every statement that nodes.apply() would send, to which node and why; changes nothing';
COMMENT ON PROCEDURE nodes.apply(interval) IS
  'makes the servers what the registry says; safe to interrupt and to repeat';
COMMENT ON PROCEDURE nodes.teardown(interval) IS
  'removes everything that this registry made on any node, and empties it; call it before DROP EXTENSION';
COMMENT ON FUNCTION nodes.take_over() IS
  'lets a restored or copied registry act on this server, under a new id';
COMMENT ON FUNCTION nodes.rules() IS 'the rules by which nodes.plan() decides, in order';

COMMENT ON FUNCTION nodes.wake_worker() IS 'behind the triggers of the registry: has the worker look again at commit';
CREATE TRIGGER wake_worker AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON nodes.registry
  FOR EACH STATEMENT EXECUTE FUNCTION nodes.wake_worker();
CREATE TRIGGER wake_worker AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON nodes.node
  FOR EACH STATEMENT EXECUTE FUNCTION nodes.wake_worker();
CREATE TRIGGER wake_worker AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON nodes.secret
  FOR EACH STATEMENT EXECUTE FUNCTION nodes.wake_worker();
CREATE TRIGGER wake_worker AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON nodes.link
  FOR EACH STATEMENT EXECUTE FUNCTION nodes.wake_worker();

REVOKE ALL ON ALL TABLES IN SCHEMA nodes FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA nodes FROM PUBLIC;
GRANT USAGE ON SCHEMA nodes TO pg_monitor;
GRANT SELECT (id, system_identifier) ON nodes.registry TO pg_monitor;
GRANT SELECT ON nodes.node, nodes.link, nodes.event, nodes.events,
  nodes.step_log, nodes.status, nodes.link_status, nodes.slots, nodes.headroom TO pg_monitor;
GRANT EXECUTE ON FUNCTION nodes.plan(), nodes.rules(), nodes.topology(), nodes.explain(text), nodes.test_node(text), nodes.observe_nodes(),
  nodes.observe_links(), nodes.observe_slots(), nodes.observe_headroom(), nodes.wait_for_link(text, interval),
  nodes.wait_for_node(text, interval) TO pg_monitor;
