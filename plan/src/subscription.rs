//! The rules of a subscription link: `from` is the publisher, `to` the subscriber. What is
//! made: a publication and a logical slot there, a subscription here, enabled last.

mod preconditions;
mod publication;
mod receiver;
mod removal;
mod room;
mod tables;

use crate::desired::{Spec, SubscriptionSpec};
use crate::index::find_named;
use crate::name::TableName;
use crate::observed::{Publication, Relation, Subscription};
use crate::refuse::left_out;
use crate::rule::{Context, Rule, RuleId, Table};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const TABLE: Table = Table {
    forbid: FORBID,
    follow: FOLLOW,
    refuse: REFUSE,
    keep: KEEP,
    remove: REMOVE,
    lacking: room::lacking,
    leftover: room::leftover,
};

/// See [`crate::step::Step::follows_group`].
pub(crate) const LISTS_OTHERS: RuleId = "SU53";
pub(crate) const HAS_JOINED: RuleId = "SU54";
/// See [`crate::step::Plan::cut_off`].
pub(crate) const SLOT_LOST: RuleId = "SU14";

const FORBID: &[Rule] = &[
    Rule {
        id: "SU01",
        when: "publisher and subscriber are one group",
        then: preconditions::same_group,
    },
    Rule {
        id: "SU03",
        when: "the subscriber is read-only",
        then: preconditions::subscriber_read_only,
    },
    Rule { id: "SU08", when: "a role lacks the rights", then: preconditions::no_rights },
];

const FOLLOW: &[Rule] = &[
    Rule {
        id: "SU25",
        when: "the subscription's conninfo is not right",
        then: receiver::set_conninfo,
    },
    Rule {
        id: LISTS_OTHERS,
        when: "the subscription lists others than the publisher's group",
        then: receiver::list_group,
    },
    Rule {
        id: "SU36",
        when: "the subscription of a paused link is enabled",
        then: receiver::pause,
    },
    Rule {
        id: "SU52",
        when: "a subscription that has missed changes is enabled",
        then: receiver::stop,
    },
];

const REFUSE: &[Rule] = &[
    Rule {
        id: "SU02",
        when: "the publisher is read-only",
        then: preconditions::publisher_read_only,
    },
    Rule {
        id: "SU04",
        when: "wal_level of the publisher is not logical",
        then: preconditions::not_logical,
    },
    Rule {
        id: "SU05",
        when: "the publisher allows no pgoutput plugin",
        then: preconditions::no_plugin,
    },
    Rule {
        id: "SU06",
        when: "the publisher has no free slot or walsender",
        then: room::no_publisher_room,
    },
    Rule {
        id: "SU07",
        when: "the subscriber has no free worker or origin",
        then: room::no_subscriber_room,
    },
    Rule {
        id: "SU09",
        when: "the publication's name is taken",
        then: preconditions::publication_taken,
    },
    Rule {
        id: "SU10",
        when: "the subscription's name is taken",
        then: preconditions::subscription_taken,
    },
    Rule { id: "SU11", when: "a table is missing on a side", then: tables::table_missing },
    Rule {
        id: "SU12",
        when: "a column is missing on the subscriber",
        then: tables::column_missing,
    },
    Rule { id: "SU13", when: "a table has no replica identity", then: tables::no_replica_identity },
    Rule { id: SLOT_LOST, when: "the slot is gone or lost", then: preconditions::slot_lost },
    Rule {
        id: "SU15",
        when: "an option needs a newer subscriber",
        then: preconditions::option_too_new,
    },
    Rule {
        id: "SU16",
        when: "the role on the publisher lacks the rights",
        then: preconditions::cannot_publish,
    },
    Rule { id: "SU17", when: "a table to publish has another owner", then: tables::not_owned },
    Rule { id: "SU18", when: "a table to copy into is not empty", then: tables::not_empty },
];

const KEEP: &[Rule] = &[
    Rule {
        id: "SU32",
        when: "the publication has another name",
        then: publication::rename_publication,
    },
    Rule {
        id: "SU33",
        when: "the subscription has another name",
        then: receiver::rename_subscription,
    },
    Rule {
        id: "SU20",
        when: "the publication is missing or FOR ALL TABLES",
        then: publication::create_publication,
    },
    Rule {
        id: "SU34",
        when: "the publication holds rows or columns back",
        then: publication::relist_tables,
    },
    Rule {
        id: "SU21",
        when: "the publication's tables are not right",
        then: publication::set_tables,
    },
    Rule {
        id: "SU35",
        when: "the publication lists whole schemas",
        then: publication::drop_schemas,
    },
    Rule {
        id: "SU22",
        when: "the publication's options are not right",
        then: publication::set_publication_options,
    },
    Rule { id: "SU23", when: "slot and subscription are missing", then: receiver::create_slot },
    Rule { id: "SU19", when: "tables to be copied anew hold rows", then: tables::empty },
    Rule { id: "SU24", when: "the subscription is missing", then: receiver::create_subscription },
    Rule {
        id: "SU26",
        when: "the subscription reads other publications",
        then: receiver::set_publication,
    },
    Rule { id: "SU27", when: "the subscription reads another slot", then: receiver::set_slot },
    Rule {
        id: "SU28",
        when: "the subscription's options are not right",
        then: receiver::set_options,
    },
    Rule {
        id: "SU51",
        when: "standbys of the publisher do not copy the slot",
        then: receiver::set_failover,
    },
    Rule {
        id: HAS_JOINED,
        when: "a standby has joined the publisher and does not copy the slot",
        then: receiver::keep_slot,
    },
    Rule { id: "SU29", when: "the subscription is not enabled", then: receiver::set_enabled },
    Rule {
        id: "SU30",
        when: "the subscription does not know the published tables",
        then: receiver::refresh,
    },
    Rule {
        id: "SU31",
        when: "a new subscription finds columns of other types",
        then: tables::warn_types,
    },
    Rule { id: "SU50", when: "one conninfo cannot list the publisher's group", then: left_out },
];

const REMOVE: &[Rule] = &[
    Rule {
        id: "SU37",
        when: "the role on the publisher may not drop the slot",
        then: removal::no_slot_drop,
    },
    Rule {
        id: "SU38",
        when: "the subscriber has become read-only",
        then: removal::cannot_drop_here,
    },
    Rule {
        id: "SU39",
        when: "the publisher has become read-only",
        then: removal::cannot_drop_there,
    },
    Rule { id: "SU40", when: "the subscription is still there", then: removal::drop_subscription },
    Rule {
        id: "SU41",
        when: "slots of an interrupted copy are left",
        then: removal::drop_copy_slots,
    },
    Rule { id: "SU42", when: "the slot is still there", then: removal::drop_slot },
    Rule { id: "SU43", when: "the publication is still there", then: removal::drop_publication },
];

fn spec<'a>(ctx: &Context<'a>) -> Option<&'a SubscriptionSpec> {
    match &ctx.link.spec {
        Spec::Subscription(spec) => Some(spec),
        Spec::Standby(_) | Spec::Foreign(_) => None,
    }
}

/// The publication is called like the link, but not where the name has a backslash: an apply
/// worker quotes the publications it asks for with `PQescapeLiteral`, whose `E''` form the
/// replication grammar does not know (`libpqrcv_startstreaming`, libpqwalreceiver.c).
fn publication_name<'c>(ctx: &'c Context<'_>) -> &'c str {
    if ctx.link.name.contains('\\') { ctx.slot() } else { &ctx.link.name }
}

/// Our publication, known by our mark: it may have been renamed.
fn publication<'a>(ctx: &Context<'a>) -> Option<&'a Publication> {
    find_named(ctx.made_there.publications, publication_name(ctx))
}

/// Our publication, where it can be made right by altering it.
fn alterable<'a>(ctx: &Context<'a>) -> Option<&'a Publication> {
    publication(ctx).filter(|found| !found.all_tables)
}

/// Our subscription, known by our mark: it may have been renamed.
fn subscription<'a>(ctx: &Context<'a>) -> Option<&'a Subscription> {
    find_named(ctx.made_here.subscriptions, &ctx.link.name)
}

fn copies(ctx: &Context<'_>) -> i64 {
    spec(ctx).map_or(0, SubscriptionSpec::copies)
}

/// The tables that the publication should list, as far as they are known. All tables are
/// listed too, never `FOR ALL TABLES`: that would publish the tables of extensions, ours with
/// its secrets among them, and could not be altered in place.
fn wanted_tables<'c>(ctx: &'c Context<'_>) -> &'c BTreeSet<TableName> {
    ctx.tables.get_or_init(|| match spec(ctx).and_then(|spec| spec.tables.as_ref()) {
        Some(tables) => Cow::Borrowed(tables),
        None => {
            let relations = ctx.source.map_or(&[][..], |source| &source.relations);
            let roots = relations.iter().filter(|r| is_table(r) && !r.is_partition);
            Cow::Owned(roots.filter(|r| !r.of_extension).map(|r| r.name.clone()).collect())
        }
    })
}

fn is_table(relation: &Relation) -> bool {
    relation.kind == "r" || relation.kind == "p"
}

fn join(tables: &BTreeSet<TableName>) -> String {
    tables.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ")
}

/// The wanted options that the object does not have.
fn option_drift(
    have: &BTreeMap<String, String>,
    want: BTreeMap<&str, &str>,
) -> BTreeMap<String, String> {
    let drift = want.into_iter().filter(|(key, value)| have.get(*key).is_none_or(|v| v != value));
    drift.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
