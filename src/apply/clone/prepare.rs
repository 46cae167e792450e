//! What must be known, and refused, before a clone is begun; who takes part, and what it is to be.

use crate::apply::desired::Desired;
use crate::apply::leader::open;
use crate::apply::{conninfo, leader};
use crate::catalog::{self, NewNode, NodeOptions, NodeRow, Rows};
use crate::clone::{Action, Task};
use crate::error::{Error, Result};
use crate::observe::session::Session;
use crate::pg::spi;
use nodes_plan::clone::{Recipe, conninfo_at};
use nodes_plan::conninfo::Conninfo;
use nodes_plan::desired::{LinkId, LinkState, NodeId, Spec, StandbyOptions, StandbySpec};
use pgrx::PgSqlErrorCode as Code;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the caller wants.
pub struct Request {
    pub name: String,
    pub primary: String,
    pub directory: PathBuf,
    pub port: u16,
    /// `None`: this server.
    pub on_node: Option<String>,
    /// `None`: the primary's, at the address of `on_node`.
    pub conninfo: Option<String>,
    pub admin_conninfo: Option<String>,
    /// In kilobytes a second.
    pub max_rate: Option<u64>,
    pub tablespaces: BTreeMap<String, String>,
    pub checksums: bool,
    pub verify: bool,
    pub synchronous: bool,
    pub options: StandbyOptions,
    pub heal: bool,
}

/// The nodes that take part.
#[derive(Clone, Copy)]
pub struct Parties {
    pub primary: NodeId,
    /// The server on the target machine.
    pub machine: NodeId,
}

/// What the primary says of itself, see `clone_source.sql`.
#[derive(Deserialize)]
pub struct Source {
    pub version: i32,
    wal_level: String,
    files: BTreeMap<String, Option<String>>,
    names_data_directory: bool,
    hba_outside: bool,
    ident_outside: bool,
    pid_file: bool,
    log_outside: bool,
    recovery_targets: Vec<String>,
    tablespaces: Vec<String>,
    sizes: BTreeMap<String, u64>,
}

/// What the server on the target machine says of itself.
#[derive(Deserialize)]
pub struct Machine {
    superuser: bool,
    callable: bool,
    listen_addresses: String,
    unix_socket_directories: String,
}

const SOURCE: &str = include_str!("../../observe/clone_source.sql");

const MACHINE: &str = "SELECT json_build_object(\
     'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
     'callable', to_regprocedure('nodes.clone_step(text, jsonb)') IS NOT NULL, \
     'listen_addresses', current_setting('listen_addresses'), \
     'unix_socket_directories', current_setting('unix_socket_directories'))";

/// The mark of a clone that is not registered yet.
const UNREGISTERED: &str = "nodes_new";

pub fn unregistered_recipe() -> Recipe {
    Recipe {
        mark: UNREGISTERED.to_owned(),
        slot: true,
        conninfo: Conninfo::default(),
        passfile: None,
        settings: vec![],
    }
}

/// The link of an earlier call with the same name and primary.
pub fn registered(rows: &Rows, request: &Request, primary: NodeId) -> Result<Option<LinkId>> {
    let Some(node) = rows.nodes.iter().find(|node| node.name == request.name) else {
        return Ok(None);
    };
    let link = rows.links.iter().find(|link| {
        link.to_node == node.id
            && link.from_node == primary
            && link.state == LinkState::Active
            && matches!(link.spec, Spec::Standby(_))
    });
    match link {
        Some(link) => Ok(Some(link.id)),
        None => Err(Error::DuplicateNode {
            name: node.name.clone(),
            conninfo: Some(node.conninfo.clone()),
        }),
    }
}

/// Registers the node and its link.
pub fn register(request: &Request, rows: &Rows, parties: Parties) -> Result<LinkId> {
    let row = |id| rows.nodes.iter().find(|node| node.id == id).ok_or(Error::NoRegistry);
    let address = Address::of(request, row(parties.primary)?, row(parties.machine)?)?;
    spi::in_own_transaction(|| {
        spi::outlive_a_crash();
        catalog::insert_node(&NewNode {
            name: &request.name,
            conninfo: &address.conninfo,
            admin_conninfo: address.admin_conninfo.as_deref(),
            registered_by: None,
            password: address.password.as_deref(),
            admin_password: address.admin_password.as_deref(),
            options: NodeOptions::default(),
            elsewhere: false,
        })?;
        let node = Rows::load()?.node(&request.name)?.id;
        let spec = Spec::Standby(StandbySpec {
            synchronous: request.synchronous,
            options: request.options,
            ..StandbySpec::new(true)
        });
        catalog::insert_link(&request.name, parties.primary, node, &spec, request.heal)?;
        Ok(Rows::load()?.link(&request.name)?.id)
    })
}

/// How the new node is reached: it has the roles and passwords of its primary.
struct Address {
    conninfo: String,
    admin_conninfo: Option<String>,
    password: Option<String>,
    admin_password: Option<String>,
}

impl Address {
    fn of(request: &Request, primary: &NodeRow, machine: &NodeRow) -> Result<Address> {
        let name = &request.name;
        let derive = |data: &str, place: &str| {
            let data = conninfo::stored(&primary.name, data, None)?;
            let place = conninfo::stored(&machine.name, place, None)?;
            conninfo_at(&data, &place, request.port).ok_or_else(|| Error::Refused {
                code: Code::ERRCODE_INVALID_PARAMETER_VALUE,
                message: format!("how \"{name}\" will be reached cannot be told by its neighbours"),
                detail: Some("Their conninfos name a service or several hosts.".to_owned()),
                hint: "Pass conninfo => … and, where it differs, admin_conninfo => …",
            })
        };
        let own = match &request.conninfo {
            Some(text) => text.clone(),
            None => derive(&primary.conninfo, &machine.conninfo)?.render(),
        };
        let own = conninfo::check(name, &own)?;
        let of = |row: &NodeRow| row.admin_conninfo.clone().unwrap_or(row.conninfo.clone());
        let differs = primary.admin_conninfo.is_some() || machine.admin_conninfo.is_some();
        let admin = match &request.admin_conninfo {
            Some(text) => Some(text.clone()),
            None if request.conninfo.is_some() || !differs => None,
            None => Some(derive(&of(primary), &of(machine))?.render()),
        };
        let admin = admin.map(|text| conninfo::check(name, &text)).transpose()?;
        let given = admin.as_ref().and_then(|admin| admin.password.clone());
        let has_admin = admin.is_some();
        Ok(Address {
            conninfo: own.conninfo,
            admin_conninfo: admin.map(|admin| admin.conninfo),
            password: own.password.or(primary.password.clone()),
            admin_password: given.or(primary.admin_password.clone().filter(|_| has_admin)),
        })
    }
}

/// Asks both servers, and refuses what cannot end well.
pub async fn look(
    desired: &Desired,
    parties: Parties,
    request: &Request,
) -> Result<(Source, Machine)> {
    let mut primary = open(desired, parties.primary).await?;
    const SUPERUSER: &str = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
    let answer = primary.connection.query(SUPERUSER, &[]).await?;
    let is_superuser = |ok: bool, node| if ok { Ok(()) } else { Err(no_superuser(desired, node)) };
    is_superuser(answer.value(0, 0) == Some("t"), parties.primary)?;
    let source: Source = leader::ask(&mut primary, SOURCE, &[]).await?;
    let machine: Machine =
        leader::ask(&mut open(desired, parties.machine).await?, MACHINE, &[]).await?;
    is_superuser(machine.superuser, parties.machine)?;
    let name = desired.registry.node_name(parties.machine);
    if !machine.callable {
        return Err(Error::Refused {
            code: Code::ERRCODE_UNDEFINED_FUNCTION,
            message: format!("node \"{name}\" has no pg_nodes that could make a clone"),
            detail: None,
            hint: "Run CREATE EXTENSION pg_nodes in the database that its conninfo names.",
        });
    }
    if source.wal_level == "minimal" {
        return Err(Error::Refused {
            code: Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: format!("wal_level on node \"{}\" is minimal", request.primary),
            detail: None,
            hint: "Set wal_level to replica or logical there and restart that server.",
        });
    }
    let unmapped = |place: &&String| !request.tablespaces.contains_key(*place);
    if let Some(place) = source.tablespaces.iter().find(unmapped) {
        return Err(Error::Refused {
            code: Code::ERRCODE_INVALID_PARAMETER_VALUE,
            message: format!("no place is named for the tablespace in \"{place}\""),
            detail: None,
            hint: "Pass tablespaces => '{\"/there\": \"/here\"}' with a place for each.",
        });
    }
    Ok((source, machine))
}

fn no_superuser(desired: &Desired, node: NodeId) -> Error {
    let name = desired.registry.node_name(node);
    Error::Refused {
        code: Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        message: format!("the role with which node \"{name}\" is reached is not a superuser"),
        detail: None,
        hint: "Give the node an admin_conninfo of a superuser with nodes.alter_node().",
    }
}

pub async fn check(desired: &Desired, parties: Parties, task: &Task) -> Result<()> {
    call(&mut open(desired, parties.machine).await?, Action::Check, task).await.map(|_| ())
}

pub fn task(request: &Request, source: &Source, machine: &Machine, recipe: Recipe) -> Task {
    let directory = &request.directory;
    let own = |name: &str| directory.join(name).display().to_string();
    let mut settings = vec![
        ("port".to_owned(), request.port.to_string()),
        ("listen_addresses".to_owned(), machine.listen_addresses.clone()),
        ("unix_socket_directories".to_owned(), machine.unix_socket_directories.clone()),
    ];
    let recipe_settings = recipe.settings.into_iter();
    settings.extend(recipe_settings.map(|(name, value)| (name.to_owned(), value)));
    let differing = [
        (source.hba_outside, "hba_file", own("pg_hba.conf")),
        (source.ident_outside, "ident_file", own("pg_ident.conf")),
        (source.pid_file, "external_pid_file", String::new()),
        (source.log_outside, "log_directory", "log".to_owned()),
    ];
    let differing = differing.into_iter().filter(|(differs, ..)| *differs);
    settings.extend(differing.map(|(_, name, value)| (name.to_owned(), value)));
    settings.extend(source.recovery_targets.iter().map(|name| (name.clone(), String::new())));
    let data_directory = ("data_directory".to_owned(), directory.display().to_string());
    let files = source.files.iter();
    Task {
        directory: directory.clone(),
        mark: recipe.mark,
        conninfo: recipe.conninfo,
        passfile: recipe.passfile,
        slot: recipe.slot,
        max_rate: request.max_rate,
        tablespaces: request
            .tablespaces
            .iter()
            .map(|(old, new)| (old.clone(), PathBuf::from(new)))
            .collect(),
        sizes: source.sizes.clone(),
        checksums: request.checksums,
        verify: request.verify,
        port: Some(request.port),
        major: source.version / 10_000,
        settings,
        files: files.map(|(name, text)| (name.clone(), text.clone().unwrap_or_default())).collect(),
        overrides: source.names_data_directory.then_some(data_directory).into_iter().collect(),
    }
}

/// Has the server on the target machine do its part, however long that takes.
pub async fn call(session: &mut Session, action: Action, task: &Task) -> Result<String> {
    leader::call(session, "nodes.clone_step", action, task).await
}
