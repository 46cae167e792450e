-- Comments and rights of everything that SQL sees.

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

COMMENT ON FUNCTION nodes.add_node(text, text, text, text) IS
  'registers a server: how the other nodes reach it, how this one does if that differs, and its password';
COMMENT ON FUNCTION nodes.alter_node(text, text, text, text) IS
  'changes how a node is reached; what is NULL stays, an empty admin_conninfo removes it';
COMMENT ON FUNCTION nodes.set_password(text, text) IS
  'changes the password with which everybody connects to a node; NULL for none';
COMMENT ON FUNCTION nodes.rename_node(text, text) IS
  'gives a node another name; nothing changes on any server';
COMMENT ON FUNCTION nodes.remove_node(text, boolean, boolean) IS
  'removes a node, with cascade its links too; nodes.apply() cleans the servers';
COMMENT ON FUNCTION nodes.add_standby(text, text, boolean, text) IS
  'says that a node should follow another by streaming replication';
COMMENT ON FUNCTION nodes.add_subscription(text, text, text, text[], boolean, jsonb) IS
  'says that tables of a node should be replicated to another (default: this one) by logical replication';
COMMENT ON FUNCTION nodes.add_foreign_schema(text, text, text, text[], text, boolean, jsonb, boolean, text) IS
  'says that a schema of a node should appear on another (default: this one) through postgres_fdw';
COMMENT ON FUNCTION nodes.alter_link(text, text[], jsonb, boolean, boolean, boolean, text[]) IS
  'changes a link; what is NULL stays';
COMMENT ON FUNCTION nodes.pause_link(text) IS
  'stops a subscription until nodes.resume_link(); its publisher keeps WAL meanwhile';
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

REVOKE ALL ON ALL TABLES IN SCHEMA nodes FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA nodes FROM PUBLIC;
GRANT USAGE ON SCHEMA nodes TO pg_monitor;
GRANT SELECT ON nodes.registry, nodes.node, nodes.link, nodes.event, nodes.events, nodes.step_log
  TO pg_monitor;
GRANT EXECUTE ON FUNCTION nodes.plan(), nodes.rules() TO pg_monitor;
