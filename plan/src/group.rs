//! A primary and its standbys, as sessions reach them: one conninfo that lists all members, so that
//! libpq itself finds the one that takes the place of the primary.

use crate::conninfo::Conninfo;
use crate::desired::{Link, LinkId, LinkState, Node, NodeId, Registry, Spec};
use crate::name::{DIGEST_SEPARATOR, digest};
use crate::observed::World;
use crate::promotion::standby_links;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The groups of a registry.
#[derive(Default)]
pub(crate) struct Groups<'a> {
    groups: Vec<Group<'a>>,
    /// Which of them a node belongs to; most belong to none.
    by_node: HashMap<NodeId, usize>,
}

/// A primary and all that follow it, directly or not, as the registry says.
#[derive(Default)]
pub(crate) struct Group<'a> {
    /// The primary first, then those that follow it, in the order of their links.
    pub members: Vec<&'a Node>,
    /// The links from one member to another.
    pub links: Vec<&'a Link>,
    /// What those that answer say: equal for a primary and its standbys.
    system_identifiers: HashMap<NodeId, &'a str>,
    /// The subscriptions that read from the primary.
    pub subscriptions: Vec<LinkId>,
}

impl<'a> Groups<'a> {
    pub fn of(registry: &'a Registry, world: &'a World) -> Self {
        let mut below: BTreeMap<NodeId, Vec<&'a Link>> = BTreeMap::new();
        let mut followers = BTreeSet::new();
        for link in standby_links(registry) {
            below.entry(link.from).or_default().push(link);
            followers.insert(link.to);
        }
        let mut groups = Groups::default();
        for primary in below.keys().filter(|node| !followers.contains(*node)) {
            let group = Group::of(*primary, &below, registry, world);
            let place = groups.groups.len();
            groups.by_node.extend(group.members.iter().map(|member| (member.id, place)));
            groups.groups.push(group);
        }
        if !groups.groups.is_empty() {
            groups.add_subscriptions(registry);
        }
        groups
    }

    fn add_subscriptions(&mut self, registry: &Registry) {
        let reads = |link: &&Link| {
            matches!(link.spec, Spec::Subscription(_)) && link.state != LinkState::Removing
        };
        for link in registry.links.iter().filter(reads) {
            let group = self.by_node.get(&link.from).map(|place| &mut self.groups[*place]);
            if let Some(group) = group.filter(|group| group.is_primary(link.from)) {
                group.subscriptions.push(link.id);
            }
        }
    }

    /// Those whose primary somebody else chooses.
    pub fn unmanaged(&self) -> impl Iterator<Item = &Group<'a>> {
        self.groups.iter().filter(|group| group.is_unmanaged())
    }

    /// The group of a node; `None`: it stands alone.
    pub fn get(&self, node: NodeId) -> Option<&Group<'a>> {
        self.by_node.get(&node).map(|place| &self.groups[*place])
    }
}

impl<'a> Group<'a> {
    fn of(
        primary: NodeId,
        below: &BTreeMap<NodeId, Vec<&'a Link>>,
        registry: &'a Registry,
        world: &'a World,
    ) -> Self {
        let mut group = Group::default();
        let mut ids = vec![primary];
        let mut next = 0;
        while let Some(node) = ids.get(next).copied() {
            next += 1;
            for link in below.get(&node).into_iter().flatten() {
                group.links.push(link);
                // A node follows one other; more would be met twice here.
                if !ids.contains(&link.to) {
                    ids.push(link.to);
                }
            }
        }
        let known = |id: &NodeId| Some((*id, world.facts(*id)?.system_identifier.as_str()));
        group.system_identifiers = ids.iter().filter_map(known).collect();
        group.members = ids.iter().filter_map(|id| registry.nodes.get(id)).collect();
        group
    }

    /// Whether a failover manager says who follows whom, and makes the slots for it.
    pub fn is_unmanaged(&self) -> bool {
        self.links.iter().any(|link| link.is_unmanaged())
    }

    /// Whether standbys are to keep the slots of subscriptions to the primary, as far as the
    /// registry says: a standby without a slot of its own cannot.
    pub fn keeps_slots(&self) -> bool {
        let slot = |link: &&Link| match &link.spec {
            Spec::Standby(spec) => spec.slot || spec.unmanaged,
            Spec::Foreign(_) | Spec::Subscription(_) => false,
        };
        let mut direct = self.links.iter().copied().filter(|link| self.is_primary(link.from));
        !self.subscriptions.is_empty() && direct.any(|link| slot(&link))
    }

    pub fn is_primary(&self, node: NodeId) -> bool {
        self.members.first().is_some_and(|primary| primary.id == node)
    }

    /// Whether a member is the same server as another, once over; `None`: one is not heard.
    pub fn is_same(&self, one: NodeId, other: NodeId) -> Option<bool> {
        let (one, other) =
            (self.system_identifiers.get(&one)?, self.system_identifiers.get(&other)?);
        Some(one == other)
    }
}

/// How sessions that a link makes reach the node where the data is.
pub(crate) struct Reach<'a> {
    pub conninfo: Cow<'a, Conninfo>,
    /// Of the conninfos of all nodes listed.
    pub digest: Cow<'a, str>,
    /// Members that one conninfo cannot list together with the node, each with what differs.
    pub left_out: Vec<(&'a Node, String)>,
}

/// What a session must be able to do.
#[derive(Clone, Copy)]
enum Need {
    Write,
    /// Read, rather from a standby.
    Read,
}

impl Need {
    /// For libpq's `target_session_attrs`.
    fn attribute(self) -> &'static str {
        match self {
            Need::Write => "read-write",
            Need::Read => "prefer-standby",
        }
    }
}

/// Reaches `from` for a link. `comment` is what the link's object bears now: it tells who was
/// listed, and who is not heard stays as it is.
pub(crate) fn reach<'a>(
    groups: &Groups<'a>,
    link: &Link,
    from: &'a Node,
    comment: Option<&str>,
) -> Reach<'a> {
    let group = groups.get(from.id);
    let need = group.and_then(|group| need(link, group.is_primary(from.id)));
    let (Some(group), Some(need), Some(own)) = (group, need, addresses(&from.conninfo)) else {
        return alone(from, vec![]);
    };
    let listed: Vec<&str> =
        comment.and_then(digest).into_iter().flat_map(|d| d.split(DIGEST_SEPARATOR)).collect();
    let mut places = own;
    let mut digests = vec![from.digest.as_str()];
    let mut left_out = Vec::new();
    for member in group.members.iter().filter(|m| ![from.id, link.to].contains(&m.id)) {
        let was_listed = !member.digest.is_empty() && listed.contains(&member.digest.as_str());
        if member.removing || !group.is_same(from.id, member.id).unwrap_or(was_listed) {
            continue;
        }
        let differs = differences(&from.conninfo, &member.conninfo);
        match addresses(&member.conninfo).filter(|_| differs.is_empty()) {
            Some(more) => {
                places.extend(more);
                digests.push(&member.digest);
            }
            None if differs.is_empty() => left_out.push((*member, "no host".to_owned())),
            None => left_out.push((*member, differs.join(", "))),
        }
    }
    if digests.len() == 1 {
        return alone(from, left_out);
    }
    let conninfo = listing(&from.conninfo, &places).with(ATTRIBUTES, need.attribute());
    digests.retain(|digest| !digest.is_empty());
    let digest = digests.join(&DIGEST_SEPARATOR.to_string());
    Reach { conninfo: Cow::Owned(conninfo), digest: Cow::Owned(digest), left_out }
}

fn alone<'a>(node: &'a Node, left_out: Vec<(&'a Node, String)>) -> Reach<'a> {
    Reach { conninfo: Cow::Borrowed(&node.conninfo), digest: Cow::Borrowed(&node.digest), left_out }
}

/// What the link's sessions need; `None`: this very node, whatever becomes of its group. Who
/// names a standby for writing gets what it named.
fn need(link: &Link, from_primary: bool) -> Option<Need> {
    match &link.spec {
        Spec::Standby(_) => None,
        Spec::Subscription(_) => from_primary.then_some(Need::Write),
        Spec::Foreign(spec) if spec.writable => from_primary.then_some(Need::Write),
        Spec::Foreign(_) => Some(Need::Read),
    }
}

const ATTRIBUTES: &str = "target_session_attrs";

/// The options that libpq takes as lists, an item for each host, and what says which to take.
pub(crate) const PER_HOST: &[&str] = &["host", "hostaddr", "port", ATTRIBUTES];

/// One place where a server listens.
struct Address<'a> {
    host: &'a str,
    hostaddr: &'a str,
    port: &'a str,
}

impl Address<'_> {
    /// What stands for the place in the list of an option.
    fn item(&self, key: &str) -> &str {
        match key {
            "host" => self.host,
            "hostaddr" => self.hostaddr,
            _ => self.port,
        }
    }
}

/// The places that a conninfo lists; `None`: it has none, or libpq would refuse them.
fn addresses(conninfo: &Conninfo) -> Option<Vec<Address<'_>>> {
    let list = |key| conninfo.get(key).filter(|value| !value.is_empty()).map(items);
    let (hosts, hostaddrs, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = hostaddrs.as_ref().or(hosts.as_ref())?.len();
    if hosts.as_ref().is_some_and(|hosts| hosts.len() != count) {
        return None;
    }
    let ports = ports.unwrap_or_else(|| vec![""]);
    if ports.len() != 1 && ports.len() != count {
        return None;
    }
    let address = |place: usize| Address {
        host: hosts.as_ref().map_or("", |hosts| hosts[place]),
        hostaddr: hostaddrs.as_ref().map_or("", |hostaddrs| hostaddrs[place]),
        port: ports.get(place).copied().unwrap_or(ports[0]),
    };
    Some((0..count).map(address).collect())
}

fn items(list: &str) -> Vec<&str> {
    list.split(',').collect()
}

/// A conninfo with these places instead of its own.
fn listing(conninfo: &Conninfo, places: &[Address<'_>]) -> Conninfo {
    let mut listing = PER_HOST.iter().fold(conninfo.clone(), |all, key| all.without(key));
    for key in ["host", "hostaddr", "port"] {
        let items: Vec<&str> = places.iter().map(|place| place.item(key)).collect();
        // An item that is empty stands for the default; a list of them for none.
        if items.iter().any(|item| !item.is_empty()) {
            listing.set(key, items.join(","));
        }
    }
    Conninfo::new(listing.iter().map(|(key, value)| (key.to_owned(), value.to_owned())))
}

/// The options that libpq has once for all hosts and that two conninfos do not agree on.
fn differences(one: &Conninfo, other: &Conninfo) -> Vec<String> {
    let keys: BTreeSet<&str> = one.iter().chain(other.iter()).map(|(key, _)| key).collect();
    let differs = |key: &&str| !PER_HOST.contains(key) && one.get(key) != other.get(key);
    keys.into_iter().filter(differs).map(str::to_owned).collect()
}
