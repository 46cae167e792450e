//! Foreign schemas.

use crate::case::*;
use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::*;
use nodes_plan::name::{Mark, extension_comment};
use nodes_plan::observed::*;
use std::collections::BTreeSet;

/// And then she is taken off the link while the node gets another password.
pub fn locked_out() -> Case {
    let case = given_to_alice(Case::foreign_made()).link(|link| match &mut link.spec {
        Spec::Foreign(spec) => spec.roles.clear(),
        Spec::Standby(_) | Spec::Subscription(_) => unreachable!("a foreign schema"),
    });
    case.password(LONDON)
}

pub fn foreign_cases() -> Vec<(&'static str, Case, &'static str)> {
    let (new, made) = (Case::foreign, Case::foreign_made);
    let spec = |case: Case, change: &dyn Fn(&mut ForeignSpec)| {
        case.link(|link| match &mut link.spec {
            Spec::Foreign(spec) => change(spec),
            Spec::Standby(_) | Spec::Subscription(_) => unreachable!("a foreign schema"),
        })
    };
    let more = Column { name: "more".into(), data_type: "text".into(), ..Column::default() };
    let keep = |link: &mut Link| link.keep_data = true;
    let renamed = || made().with(PARIS, rename);
    vec![
        (
            "FO01",
            new().with(PARIS, |f| f.in_recovery = true),
            "is a standby and accepts no changes",
        ),
        ("FO02", new().with(PARIS, |f| f.fdw_available = false), "postgres_fdw is not available"),
        ("FO03", made().with(PARIS, |f| f.servers[0].comment = None), "server \"feed\" exists"),
        (
            "FO04",
            new().with(PARIS, |f| {
                f.schemas.push(schema("stock", None));
                f.relations.push(relation("stock", "mine"));
            }),
            "holds 1 other tables or views: \"stock\".\"mine\"",
        ),
        (
            "FO05",
            new().with(LONDON, |f| f.schemas.clear()),
            "schema \"inventory\" does not exist on node \"london\"",
        ),
        (
            "FO06",
            spec(new(), &|s| s.tables = Some(BTreeSet::from(["nothing".into()]))),
            "table \"inventory\".\"nothing\" does not exist",
        ),
        (
            "FO07",
            spec(new(), &|s| {
                s.roles.insert("alice".into());
            }),
            "role \"alice\" does not exist on node \"paris\"",
        ),
        ("FO08", new().with(PARIS, |f| f.superuser = false), "has no password"),
        (
            "FO04",
            new().with(PARIS, |f| {
                let comment = Some(Mark { link: 9, ..mark() }.comment());
                f.schemas.push(schema("stock", comment));
            }),
            "schema \"stock\" still belongs to link 9",
        ),
        (
            "FO04",
            new().and_another(|_| ()),
            "schema \"stock\" on node \"paris\" is that of link \"feed\"",
        ),
        (
            "FO09",
            new().password(LONDON).with(PARIS, |f| f.superuser = false),
            "lacks the extension postgres_fdw",
        ),
        (
            "FO12",
            new().with(PARIS, |f| f.can_use_fdw = Some(false)),
            "role \"admin\" on node \"paris\" may not use postgres_fdw — Run GRANT USAGE",
        ),
        (
            "FO12",
            new().with(PARIS, |f| f.can_create = false),
            "may not create schemas — Run GRANT CREATE ON DATABASE \"app\"",
        ),
        (
            "FO20",
            new(),
            "CREATE SERVER \"feed\" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (\"dbname\" 'app', \"host\" 'london')",
        ),
        ("FO20", spec(new(), &|s| s.writable = false), "\"updatable\" 'false'"),
        (
            "FO21",
            made().with(PARIS, |f| f.servers[0].options.insert("host".into(), "old".into())),
            "ALTER SERVER \"feed\" OPTIONS (SET \"host\" 'london')",
        ),
        (
            "FO22",
            new().password(LONDON),
            "CREATE USER MAPPING FOR \"admin\" SERVER \"feed\" OPTIONS (\"user\" 'link', \"password\" '********')",
        ),
        (
            "FO22",
            spec(made(), &|s| s.public = true),
            "CREATE USER MAPPING FOR PUBLIC SERVER \"feed\"",
        ),
        (
            "FO23",
            made().password(LONDON),
            "ALTER USER MAPPING FOR \"admin\" SERVER \"feed\" OPTIONS (ADD \"password\" '********')",
        ),
        (
            "FO23",
            made().digest(LONDON).with(PARIS, |f| f.servers[0].mappings[0].options = None),
            "DROP USER MAPPING FOR \"admin\" SERVER \"feed\"; CREATE USER MAPPING FOR \"admin\"",
        ),
        (
            "FO37",
            locked_out(),
            "REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" FROM \"alice\"",
        ),
        ("FO37", locked_out(), "REVOKE USAGE ON SCHEMA \"stock\" FROM \"alice\""),
        ("FO37", locked_out(), "DROP USER MAPPING FOR \"alice\" SERVER \"feed\""),
        ("FO36", made().digest(LONDON), "COMMENT ON SERVER \"feed\" IS"),
        (
            "FO28",
            made().with(PARIS, |f| {
                let mapping = Mapping { role: None, ..f.servers[0].mappings[0].clone() };
                f.servers[0].mappings.push(mapping);
            }),
            "DROP USER MAPPING FOR PUBLIC SERVER \"feed\"",
        ),
        ("FO24", new(), "CREATE SCHEMA \"stock\"; COMMENT ON SCHEMA \"stock\""),
        (
            "FO25",
            made().with(LONDON, |f| f.relations.retain(|r| r.name.schema != "inventory")),
            "DROP FOREIGN TABLE \"stock\".\"items\"",
        ),
        ("FO26", new(), "IMPORT FOREIGN SCHEMA \"inventory\" FROM SERVER \"feed\" INTO \"stock\""),
        (
            "FO26",
            made().with(LONDON, |f| f.relations.push(relation("inventory", "new"))),
            "IMPORT FOREIGN SCHEMA \"inventory\" LIMIT TO (\"new\")",
        ),
        (
            "FO27",
            made().with(LONDON, |f| f.relations[2].columns.push(more)),
            "ALTER FOREIGN TABLE \"stock\".\"items\" ADD COLUMN \"more\" text",
        ),
        (
            "FO27",
            made().with(LONDON, |f| f.relations[2].columns[0].data_type = GEOMETRY.into()),
            "ALTER COLUMN \"id\" TYPE public.geometry(Point,4326)",
        ),
        (
            "FO27",
            made().with(LONDON, |f| f.relations[2].columns[0].not_null = true),
            "ALTER FOREIGN TABLE \"stock\".\"items\" ALTER COLUMN \"id\" SET NOT NULL",
        ),
        (
            "FO27",
            made().with(PARIS, |f| imported(f).columns[0].not_null = true),
            "ALTER FOREIGN TABLE \"stock\".\"items\" ALTER COLUMN \"id\" DROP NOT NULL",
        ),
        (
            "FO33",
            made().with(PARIS, |f| imported(f).options = map(&[("updatable", "false")])),
            "ALTER FOREIGN TABLE \"stock\".\"items\" OPTIONS (DROP \"updatable\")",
        ),
        (
            "FO34",
            made().with(LONDON, |f| f.relations[2].columns[0].data_type = "x('y')".into()),
            "type x('y') of column \"id\" of \"inventory\".\"items\" on \"london\" cannot be read as a type — Give \"stock\".\"items\" that column by hand",
        ),
        (
            "FO50",
            grouped(made()).password(OSLO),
            "its conninfo differs from that of \"london\" (password)",
        ),
        ("FO38", joined(made()), "ADD \"target_session_attrs\" 'read-write'"),
        ("FO38", joined(made()), "COMMENT ON SERVER \"feed\" IS"),
        (
            "FO25",
            spec(made(), &|s| s.tables = Some(BTreeSet::new())),
            "DROP FOREIGN TABLE \"stock\".\"items\"",
        ),
        (
            "FO35",
            made().with(PARIS, |f| imported(f).remote = Some(table("elsewhere", "items"))),
            "\"stock\".\"items\" is in the way of a foreign table for \"inventory\".\"items\"",
        ),
        (
            "FO35",
            made()
                .with(PARIS, |f| f.relations.push(relation("stock", "new")))
                .with(LONDON, |f| f.relations.push(relation("inventory", "new"))),
            "\"stock\".\"new\" is in the way",
        ),
        (
            "FO33",
            made().with(PARIS, |f| imported(f).remote = Some(table("inventory", "other"))),
            "ALTER FOREIGN TABLE \"stock\".\"items\" OPTIONS (SET \"table_name\" 'items')",
        ),
        ("FO31", for_alice(new()), "GRANT USAGE ON SCHEMA \"stock\" TO \"alice\""),
        (
            "FO31",
            for_alice(new()),
            "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" TO \"alice\"",
        ),
        (
            "FO31",
            spec(for_alice(made()), &|s| s.writable = false),
            "GRANT SELECT ON TABLE \"stock\".\"items\" TO \"alice\"",
        ),
        (
            "FO31",
            spec(made(), &|s| s.public = true),
            "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" TO PUBLIC",
        ),
        (
            "FO31",
            for_alice(made()).with(PARIS, |f| {
                let stock = f.schemas.iter_mut().find(|schema| schema.name == "stock");
                let stock = stock.expect("the local schema");
                (stock.comment, stock.owner, stock.owned) = (None, "bob".into(), false);
            }),
            "alice may not use schema \"stock\", which is that of bob — Have bob grant USAGE on it to alice.",
        ),
        (
            "FO32",
            spec(given_to_alice(made()), &|s| s.roles.clear()),
            "REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" FROM \"alice\"",
        ),
        (
            "FO32",
            spec(given_to_alice(made()), &|s| s.roles.clear()),
            "REVOKE USAGE ON SCHEMA \"stock\" FROM \"alice\"",
        ),
        (
            "FO32",
            spec(given_to_alice(made()), &|s| s.writable = false),
            "REVOKE INSERT, UPDATE, DELETE ON TABLE \"stock\".\"items\" FROM \"alice\"",
        ),
        ("FO29", renamed(), "ALTER SERVER \"old feed\" RENAME TO \"feed\""),
        ("FO30", renamed(), "ALTER SCHEMA \"old stock\" RENAME TO \"stock\""),
        (
            "FO27",
            renamed().with(LONDON, |f| f.relations[2].columns.clear()),
            "ALTER FOREIGN TABLE \"stock\".\"items\" DROP COLUMN \"id\"",
        ),
        (
            "FO03",
            renamed().with(PARIS, |f| {
                f.servers.push(Server { name: "feed".into(), ..Server::default() });
            }),
            "server \"feed\" exists and was not made by this registry",
        ),
        (
            "FO10",
            renamed().with(PARIS, |f| {
                f.schemas.push(schema("stock", None));
            }),
            "is called \"old stock\" now, and another is called \"stock\" — Rename or drop schema \"stock\"",
        ),
        ("FO40", renamed().removing().link(keep), "COMMENT ON SERVER \"old feed\" IS NULL"),
        ("FO40", renamed().removing().link(keep), "COMMENT ON SCHEMA \"old stock\" IS NULL"),
        ("FO41", renamed().removing(), "DROP FOREIGN TABLE \"old stock\".\"items\""),
        ("FO42", renamed().removing(), "DROP USER MAPPING FOR \"admin\" SERVER \"old feed\""),
        ("FO43", renamed().removing(), "DROP SERVER \"old feed\""),
        ("FO44", renamed().removing(), "DROP SCHEMA \"old stock\""),
        (
            "FO39",
            made().removing().with(PARIS, |f| f.in_recovery = true),
            "node \"paris\" is a standby",
        ),
        ("FO40", made().removing().link(keep), "COMMENT ON SERVER \"feed\" IS NULL"),
        ("FO40", made().removing().link(keep), "COMMENT ON SCHEMA \"stock\" IS NULL"),
        ("FO41", made().removing(), "DROP FOREIGN TABLE \"stock\".\"items\""),
        ("FO42", made().removing(), "DROP USER MAPPING FOR \"admin\" SERVER \"feed\""),
        ("FO43", made().removing(), "DROP SERVER \"feed\""),
        (
            "FO43",
            made().removing().with(PARIS, |f| {
                f.servers[0].tables.insert(table("mine", "items"));
            }),
            "COMMENT ON SERVER \"feed\" IS NULL",
        ),
        ("FO44", made().removing(), "DROP SCHEMA \"stock\""),
        (
            "FO44",
            made().removing().with(PARIS, |f| f.relations.push(relation("stock", "mine"))),
            "COMMENT ON SCHEMA \"stock\" IS NULL",
        ),
    ]
}

/// Once its node is forgotten nobody would know of an extension that is still there.
#[test]
fn postgres_fdw_goes_before_the_link_and_the_node() {
    let mut case = Case::foreign().removing();
    case.registry.nodes.get_mut(&PARIS).expect("paris").removing = true;
    let case = case.with(PARIS, |f| f.fdw_comment = Some(extension_comment(REGISTRY)));
    let lines = case.lines();
    assert!(lines[0].starts_with("RG05") && lines[1].starts_with("RG01"), "{lines:#?}");
    assert_eq!(lines.len(), 2, "the node is forgotten later: {lines:#?}");
}

/// Who made a mapping with a name and password of their own keeps it.
#[test]
fn a_mapping_with_other_credentials_stays() {
    let theirs = Conninfo::default().with("user", "alice").with("password", "hers");
    let mapping = Mapping { role: Some("alice".into()), options: Some(theirs) };
    let case = Case::foreign_made().with(PARIS, |f| f.servers[0].mappings.push(mapping));
    assert_eq!(case.lines(), [""; 0]);
}

/// A foreign table in our schema, on our server, that shows what the link does not.
#[test]
fn a_table_of_another_remote_schema_stays() {
    let theirs = || Relation {
        kind: "f".into(),
        server: Some("feed".into()),
        remote: Some(table("elsewhere", "items")),
        ..relation("stock", "theirs")
    };
    let made = || {
        Case::foreign_made().with(PARIS, |f| {
            f.servers[0].tables.insert(theirs().name);
            f.relations.push(theirs());
        })
    };
    assert_eq!(made().lines(), [""; 0]);
    let removed = made().removing().lines();
    assert!(!removed.iter().any(|line| line.contains("theirs")), "{removed:#?}");
    for kept in ["COMMENT ON SERVER \"feed\" IS NULL", "COMMENT ON SCHEMA \"stock\" IS NULL"] {
        assert!(removed.iter().any(|line| line.contains(kept)), "{removed:#?}");
    }
}

/// Rights are given on the link's tables only, and those that others have are left alone.
#[test]
fn rights_are_those_of_the_link_and_its_roles() {
    let theirs = |name: &str, server: Option<&str>| Relation {
        kind: if server.is_some() { "f" } else { "r" }.into(),
        server: server.map(str::to_owned),
        remote: server.map(|_| table("elsewhere", name)),
        ..relation("stock", name)
    };
    let with_theirs = |f: &mut NodeFacts| {
        f.relations.push(theirs("wages", None));
        f.relations.push(theirs("bills", Some("feed")));
    };
    let lines = for_alice(Case::foreign_made()).with(PARIS, with_theirs).lines();
    let granted: Vec<&String> = lines.iter().filter(|line| line.starts_with("FO31")).collect();
    assert_eq!(granted.len(), 2, "{lines:#?}");
    assert!(!granted.iter().any(|line| line.contains("wages") || line.contains("bills")));

    assert_eq!(given_to_alice(Case::foreign_made()).lines(), [""; 0]);
    let to_others = given_to_alice(Case::foreign_made()).with(PARIS, |f| {
        let more =
            grants(&[(Some("carol"), "DELETE"), (None, "SELECT"), (Some("alice"), "TRUNCATE")]);
        imported(f).grants.extend(more);
    });
    assert_eq!(to_others.lines(), [""; 0]);
    // An owner needs no grant, and is not robbed of its own.
    let owner = for_alice(Case::foreign_made()).with(PARIS, |f| imported(f).owner = "alice".into());
    assert!(!owner.lines().iter().any(|line| line.contains("ON TABLE")), "{:#?}", owner.lines());
}

/// Without our server nothing of the schema is dropped, so it cannot be dropped either.
#[test]
fn a_schema_with_tables_that_stay_is_released() {
    let lines = Case::foreign_made().removing().with(PARIS, |f| f.servers[0].comment = None);
    lines.fires("FO44", "COMMENT ON SCHEMA \"stock\" IS NULL");
}

/// Nothing is forgotten while something stands in the way of its removal.
#[test]
fn what_cannot_be_removed_is_not_forgotten() {
    let read_only = |f: &mut NodeFacts| f.in_recovery = true;
    for case in [Case::foreign_made(), Case::subscription_made()] {
        let lines = case.removing().with(PARIS, read_only).lines();
        assert!(!lines.iter().any(|line| line.starts_with("RG01")), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains(" paris: ")), "a step there: {lines:#?}");
    }
}
