--
-- What people say of how nodes and links are watched
--
\set VERBOSITY default
CREATE EXTENSION pg_nodes;
SELECT FROM nodes.add_node('paris', 'host=192.0.2.1');
SELECT FROM nodes.add_node('oslo', 'host=192.0.2.2');

-- How a node is watched: options of its own, with units, and back to the settings.
SELECT nodes.add_node('watched', 'host=192.0.2.40', options => '{"heartbeat_interval": "250ms", "node_timeout": "1min"}');
SELECT options FROM nodes.node WHERE name = 'watched';
SELECT nodes.alter_node('watched', options => '{}');
SELECT options FROM nodes.node WHERE name = 'watched';
SELECT nodes.alter_node('watched', options => '{"heartbeat_interval": "1ms"}');
SELECT nodes.alter_node('watched', options => '{"node_timeout": "often"}');
SELECT nodes.alter_node('watched', options => '{"patience": 1}');
SELECT nodes.explain('nobody');

-- What the worker goes by: limits with units, and whether the link heals.
SELECT nodes.add_standby('oslo', 'paris', name => 'watched', heal => true);
SELECT heal, limits, pending FROM nodes.link WHERE name = 'watched';
SELECT nodes.alter_link('watched', heal => false, limits => '{"max_lag": "5min", "max_lag_bytes": "16MB", "max_retained_wal": "2GB"}');
SELECT heal, limits FROM nodes.link WHERE name = 'watched';
SELECT nodes.alter_link('watched', limits => '{"max_lag": "-1s"}');
SELECT nodes.alter_link('watched', limits => '{"max_fun": 1}');

DROP EXTENSION pg_nodes;
