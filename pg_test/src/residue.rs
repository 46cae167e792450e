//! What pg_nodes must not leave behind when its links are gone.
use crate::Server;

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
         WHERE name = 'primary_slot_name' AND setting LIKE 'nodes\\_%'",
    ),
];

impl Server {
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
}
