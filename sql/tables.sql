-- The registry: what should be. Nothing in here says how far anybody got.

DO $$
BEGIN
  IF (SELECT pg_catalog.pg_encoding_to_char(encoding) FROM pg_catalog.pg_database
      WHERE datname = pg_catalog.current_database()) <> 'UTF8' THEN
    RAISE EXCEPTION 'pg_nodes needs a database with encoding UTF8'
      USING ERRCODE = 'feature_not_supported',
            HINT = 'Create the extension in a database made with ENCODING ''UTF8''.';
  END IF;
END
$$;

CREATE TABLE nodes.registry (
  only_one boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (only_one),
  id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
  system_identifier text NOT NULL,
  database_oid oid NOT NULL,
  database_name text NOT NULL,
  key uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
COMMENT ON TABLE nodes.registry IS 'one row, made with the first node: which registry this is, and the server that may act for it';
COMMENT ON COLUMN nodes.registry.only_one IS 'keeps the table at one row';
COMMENT ON COLUMN nodes.registry.id IS 'part of the mark on every object that this registry makes';
COMMENT ON COLUMN nodes.registry.system_identifier IS 'system identifier of the server that acts; elsewhere the registry is passive until nodes.take_over()';
COMMENT ON COLUMN nodes.registry.database_oid IS 'the database that acts, which may be renamed';
COMMENT ON COLUMN nodes.registry.database_name IS 'its name, under which it may be made again; a copy has neither';
COMMENT ON COLUMN nodes.registry.key IS 'makes the digests of conninfos in marks, so that no password can be guessed by them; readable by the owner alone';

CREATE TABLE nodes.node (
  id serial PRIMARY KEY,
  name text NOT NULL UNIQUE,
  conninfo text NOT NULL,
  admin_conninfo text,
  registered_by text,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'removing', 'gone')),
  options jsonb NOT NULL DEFAULT '{}',
  system_identifier text
);
COMMENT ON TABLE nodes.node IS 'registered servers; change it with nodes.add_node(), nodes.alter_node(), nodes.remove_node()';
COMMENT ON COLUMN nodes.node.id IS 'internal number';
COMMENT ON COLUMN nodes.node.name IS 'what people call the node';
COMMENT ON COLUMN nodes.node.conninfo IS 'how the other nodes reach it, without secrets';
COMMENT ON COLUMN nodes.node.admin_conninfo IS 'how this registry reaches it; NULL: as the other nodes do';
COMMENT ON COLUMN nodes.node.registered_by IS 'NULL: a superuser vouches for the address; else the role that is none and gave it: connections must prove themselves with a password';
COMMENT ON COLUMN nodes.node.state IS 'active, removing until its last link is removed, or gone: as removing, and nobody waits for its answer';
COMMENT ON COLUMN nodes.node.options IS 'heartbeat_interval and node_timeout of its own, in milliseconds';
COMMENT ON COLUMN nodes.node.system_identifier IS 'learnt at the first contact; a server with another one is not the node';

CREATE TABLE nodes.secret (
  node integer PRIMARY KEY REFERENCES nodes.node (id) ON DELETE CASCADE,
  password text,
  admin_password text
);
COMMENT ON TABLE nodes.secret IS 'passwords of nodes, readable by the owner alone; a passfile, a service file or a certificate is better';
COMMENT ON COLUMN nodes.secret.node IS 'the node that the password opens';
COMMENT ON COLUMN nodes.secret.password IS 'the password for conninfo';
COMMENT ON COLUMN nodes.secret.admin_password IS 'the password for admin_conninfo, where it has one of its own';

CREATE TABLE nodes.link (
  id serial PRIMARY KEY,
  name text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('standby', 'foreign', 'subscription')),
  from_node integer NOT NULL REFERENCES nodes.node (id),
  to_node integer NOT NULL REFERENCES nodes.node (id),
  spec jsonb NOT NULL,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'removing')),
  keep_data boolean NOT NULL DEFAULT true,
  heal boolean NOT NULL DEFAULT false,
  limits jsonb NOT NULL DEFAULT '{}',
  pending boolean NOT NULL DEFAULT true,
  CHECK (from_node <> to_node)
);
CREATE UNIQUE INDEX link_name_key ON nodes.link (name) WHERE state <> 'removing';
COMMENT ON TABLE nodes.link IS 'links that should exist; change it with nodes.add_standby(), nodes.add_subscription(), nodes.add_foreign_schema(), nodes.alter_link(), nodes.remove_link()';
COMMENT ON COLUMN nodes.link.id IS 'internal number, part of the mark on every object of the link';
COMMENT ON COLUMN nodes.link.name IS 'what people call the link; publication, subscription and foreign server have the same name';
COMMENT ON COLUMN nodes.link.kind IS 'standby, foreign or subscription';
COMMENT ON COLUMN nodes.link.from_node IS 'where the data is';
COMMENT ON COLUMN nodes.link.to_node IS 'where the data goes or appears';
COMMENT ON COLUMN nodes.link.spec IS 'the details, by kind';
COMMENT ON COLUMN nodes.link.state IS 'active, paused, or removing until both sides are clean';
COMMENT ON COLUMN nodes.link.keep_data IS 'on removal: foreign tables stay';
COMMENT ON COLUMN nodes.link.heal IS 'what people change by hand is changed back by itself; otherwise it is only reported';
COMMENT ON COLUMN nodes.link.limits IS 'max_lag_bytes and max_retained_wal in bytes and max_lag in seconds, where the link has its own';
COMMENT ON COLUMN nodes.link.pending IS 'what was last said of the link, or of its nodes, has not been brought about yet';

CREATE TABLE nodes.event (
  id bigserial PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  node text,
  link text,
  kind text NOT NULL,
  severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
  message text NOT NULL,
  detail jsonb
);
COMMENT ON TABLE nodes.event IS 'what changed: a row for each transition, none for steady state';
COMMENT ON COLUMN nodes.event.id IS 'order of the events';
COMMENT ON COLUMN nodes.event.at IS 'when it was noticed';
COMMENT ON COLUMN nodes.event.node IS 'name of the node, if it is about one';
COMMENT ON COLUMN nodes.event.link IS 'name of the link, if it is about one';
COMMENT ON COLUMN nodes.event.kind IS 'what happened, in a word or two';
COMMENT ON COLUMN nodes.event.severity IS 'info, warning or critical';
COMMENT ON COLUMN nodes.event.message IS 'what happened, in a sentence';
COMMENT ON COLUMN nodes.event.detail IS 'the facts behind it';

CREATE TABLE nodes.step_log (
  id bigserial PRIMARY KEY,
  started timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  finished timestamptz,
  node text,
  link text,
  rule text NOT NULL,
  command text NOT NULL,
  sqlstate text,
  message text
);
COMMENT ON TABLE nodes.step_log IS 'what nodes.apply() did, a row for each statement; history only, nothing is decided from it';
COMMENT ON COLUMN nodes.step_log.id IS 'order of the steps';
COMMENT ON COLUMN nodes.step_log.started IS 'when the statement was sent';
COMMENT ON COLUMN nodes.step_log.finished IS 'when the answer came; NULL: still running, or nobody knows';
COMMENT ON COLUMN nodes.step_log.node IS 'where it ran; NULL: in the registry';
COMMENT ON COLUMN nodes.step_log.link IS 'for which link';
COMMENT ON COLUMN nodes.step_log.rule IS 'the rule that asked for it, see nodes.rules()';
COMMENT ON COLUMN nodes.step_log.command IS 'the statement, secrets masked';
COMMENT ON COLUMN nodes.step_log.sqlstate IS 'NULL or the error that ended it';
COMMENT ON COLUMN nodes.step_log.message IS 'NULL or the error''s message';

SELECT pg_catalog.pg_extension_config_dump('nodes.registry', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.node', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.node_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.secret', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.link', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.link_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.event', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.event_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.step_log', '');
SELECT pg_catalog.pg_extension_config_dump('nodes.step_log_id_seq', '');
