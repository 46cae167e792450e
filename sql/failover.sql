-- Streaming replication for life: what SQL sees of it.

CREATE VIEW nodes.failover_ready AS SELECT * FROM nodes.observe_failover();
COMMENT ON VIEW nodes.failover_ready IS 'whether each standby could take the place of its primary now; asks the servers';
COMMENT ON COLUMN nodes.failover_ready.link IS 'the standby link';
COMMENT ON COLUMN nodes.failover_ready.primary_node IS 'whom the standby follows';
COMMENT ON COLUMN nodes.failover_ready.standby IS 'who would take over';
COMMENT ON COLUMN nodes.failover_ready.ready IS 'whether nothing stands in the way';
COMMENT ON COLUMN nodes.failover_ready.lag_bytes IS 'WAL of the primary that the standby has not replayed; NULL: unknown';
COMMENT ON COLUMN nodes.failover_ready.reasons IS 'every reason why it is not ready';
COMMENT ON COLUMN nodes.failover_ready.hints IS 'what to do about each reason';
COMMENT ON COLUMN nodes.failover_ready.rules IS 'the rule behind each reason, see nodes.rules()';
COMMENT ON FUNCTION nodes.observe_failover() IS 'asks every node that has links; behind the view nodes.failover_ready';

CREATE VIEW nodes.failover_slots AS SELECT * FROM nodes.observe_failover_slots();
COMMENT ON VIEW nodes.failover_slots IS 'whether each logical slot of a primary would survive if the standby took over now; asks the servers';
COMMENT ON COLUMN nodes.failover_slots.link IS 'the standby link';
COMMENT ON COLUMN nodes.failover_slots.primary_node IS 'who has the slot now';
COMMENT ON COLUMN nodes.failover_slots.standby IS 'who would take over';
COMMENT ON COLUMN nodes.failover_slots.slot IS 'the logical slot';
COMMENT ON COLUMN nodes.failover_slots.subscription IS 'the link that reads it; NULL: somebody else''s';
COMMENT ON COLUMN nodes.failover_slots.ready IS 'whether nothing about this slot stands in the way; what concerns the whole standby is in nodes.failover_ready';
COMMENT ON COLUMN nodes.failover_slots.reasons IS 'every reason why it would not survive';
COMMENT ON COLUMN nodes.failover_slots.hints IS 'what to do about each reason';
COMMENT ON COLUMN nodes.failover_slots.rules IS 'the rule behind each reason, see nodes.rules()';
COMMENT ON FUNCTION nodes.observe_failover_slots() IS 'asks every node that has links; behind the view nodes.failover_slots';

REVOKE ALL ON nodes.failover_ready, nodes.failover_slots FROM PUBLIC;
REVOKE ALL ON FUNCTION nodes.observe_failover(), nodes.observe_failover_slots() FROM PUBLIC;
GRANT SELECT ON nodes.failover_ready, nodes.failover_slots TO pg_monitor;
GRANT EXECUTE ON FUNCTION nodes.observe_failover(), nodes.observe_failover_slots() TO pg_monitor;

COMMENT ON PROCEDURE nodes.clone_standby(text, text, text, integer, text, text, text, text, jsonb, boolean, boolean, boolean, jsonb, boolean) IS
  'makes a standby: copies a node with pg_basebackup into a directory on the machine of on_node (default: this server), starts it and registers it, with synchronous, options and heal of add_standby(); an interrupted call can be repeated. For superusers only';
COMMENT ON FUNCTION nodes.clone_step(text, jsonb) IS
  'behind nodes.clone_standby(): what the server on the target machine does. For superusers only';

COMMENT ON PROCEDURE nodes.promote(text, boolean) IS
  'makes a standby the primary in place of one that is dead, and has all links follow it; refuses while anybody in the group sees the old one, and, unless forced, where WAL would be lost that another standby has. For superusers only; callable on a standby';
COMMENT ON FUNCTION nodes.move_links(text, text, boolean) IS
  'behind nodes.promote(): has the registry say that what followed or read the one node follows and reads the other. For superusers only';
COMMENT ON PROCEDURE nodes.switchover(text, interval, boolean) IS
  'has a primary hand over to one of its standbys: checks everything first, restarts the primary as a standby, promotes the other when it has all, and has all links follow; what fails before the promotion is taken back; force accepts that logical slots stay behind. For superusers only; to be called on any server but the primary';
COMMENT ON FUNCTION nodes.demote_step(text, jsonb) IS
  'behind nodes.switchover() and nodes.rejoin(): what a server does that becomes a standby. For superusers only';
COMMENT ON PROCEDURE nodes.rejoin(text, interval, boolean, text) IS
  'has a server that was the primary return as a standby of who is now: says what it has written since they parted, which is lost, and has it rewind itself with pg_rewind, or, where that is not possible and copy is not false, take the place of its data directory with a new copy of the primary, made at max_rate at most; the old directory goes when the copy runs. timeout is how long it may take to return. For superusers only';
