//! What links are made of, and what pg_nodes must not leave behind when they are gone.
use crate::{LONG, Server, wait_until};

/// Each query names what is left, one text a row.
const QUERIES: &[(&str, &str)] = &[
    ("replication slots", "SELECT slot_name FROM pg_replication_slots"),
    ("publications", "SELECT pubname FROM pg_publication"),
    ("subscriptions", "SELECT subname FROM pg_subscription"),
    ("foreign servers", "SELECT srvname FROM pg_foreign_server"),
    ("user mappings", "SELECT usename || ' on ' || srvname FROM pg_user_mappings"),
    // A standby that was let go keeps what its primary had at that moment, such as an extension
    // about to be dropped there.
    (
        "comments with our mark",
        "SELECT description FROM pg_description \
         WHERE description LIKE '%by pg_nodes: registry%' \
           AND NOT (pg_is_in_recovery() AND classoid = 'pg_extension'::regclass) \
         UNION ALL \
         SELECT description FROM pg_shdescription \
         WHERE description LIKE '%by pg_nodes: registry%'",
    ),
    (
        "settings",
        "SELECT name || ' = ' || setting FROM pg_settings \
         WHERE name IN ('primary_slot_name', 'synchronous_standby_names') \
           AND setting LIKE '%nodes\\_%'",
    ),
];

/// Marks differ from run to run.
const LINK_OBJECTS: &str = "
    SELECT regexp_replace(thing, 'nodes_[0-9a-f]+_[0-9]+', 'MARK', 'g') FROM (
    -- A standby copies those of its primary in its own time.
    SELECT format('slot %s %s', slot_name, slot_type) FROM pg_replication_slots s
    WHERE coalesce(to_jsonb(s) ->> 'synced', '') <> 'true'
    UNION ALL SELECT format('publication %s: %s.%s', pubname, schemaname, tablename)
      FROM pg_publication_tables
    UNION ALL SELECT format('subscription %s %s %s %s', subname, subenabled, subslotname,
      subpublications) FROM pg_subscription
    UNION ALL SELECT format('copied %s %s', srrelid::regclass, srsubstate)
      FROM pg_subscription_rel
    UNION ALL SELECT format('server %s %s', srvname, srvoptions) FROM pg_foreign_server
    UNION ALL SELECT format('mapping %s %s', srvname, umoptions) FROM pg_user_mappings
    UNION ALL SELECT format('table %s', ftrelid::regclass) FROM pg_foreign_table
    UNION ALL SELECT format('%s = %s', name, setting) FROM pg_settings
      WHERE name IN ('primary_slot_name', 'primary_conninfo', 'synchronous_standby_names')) made(thing) ORDER BY 1";

impl Server {
    /// What links are made of on this server, one object a line.
    #[track_caller]
    pub fn link_objects(&self, db: &str) -> Vec<String> {
        self.query_texts(db, LINK_OBJECTS)
    }

    /// Fails unless this server's database `db` is free of everything pg_nodes makes.
    #[track_caller]
    pub fn assert_no_residue(&self, db: &str) {
        let left = self.residue(db);
        assert!(left.is_empty(), "left on {}/{db}:\n{}", self.name(), left.join("\n"));
    }

    /// What [`Server::assert_no_residue`] would complain about.
    #[track_caller]
    pub fn residue(&self, db: &str) -> Vec<String> {
        let mut left: Vec<String> = QUERIES
            .iter()
            .map(|(what, query)| (what, self.query_texts(db, query)))
            .filter(|(_, found)| !found.is_empty())
            .map(|(what, found)| format!("{what}: {}", found.join(", ")))
            .collect();
        for name in ["pg_nodes.passfile", "pg_nodes.passfile.new"] {
            let file = self.data_dir().join(name);
            if file.exists() {
                left.push(format!("the file {}", file.display()));
            }
        }
        left
    }
    /// Waits until a standby that was let go is free of all that was made on it. Its catalogs
    /// stay as its primary's were at that moment.
    #[track_caller]
    pub fn await_no_standby_residue(&self, db: &str) {
        let own = ["replication slots", "settings", "the file"];
        wait_until(&format!("{} is clean", self.name()), LONG, || {
            let left = self.residue(db);
            !left.iter().any(|line| own.iter().any(|what| line.starts_with(what)))
        });
    }
}
