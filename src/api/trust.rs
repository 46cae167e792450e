//! Whose passwords may stand on whose servers. A link takes the password of the node that it
//! reads from to the server that it leads to; who chose that server reads it there.

use crate::catalog::{NodeRow, Rows};
use crate::error::{Error, Result};
use crate::pg::user;
use nodes_plan::desired::LinkState;

/// For a new link: a role that is not a superuser takes only its own passwords to a server
/// that no superuser vouches for.
pub fn check_link(from: &NodeRow, to: &NodeRow) -> Result<()> {
    match &to.registered_by {
        Some(role) => check_password(from, to, role),
        None => Ok(()),
    }
}

/// For a node that gets another address: the links that lead to it take passwords there.
pub fn check_move(rows: &Rows, to: &NodeRow) -> Result<()> {
    let links = rows.links.iter().filter(|link| link.state != LinkState::Removing);
    let sources = links.filter(|link| link.to_node == to.id).map(|link| link.from_node);
    let mut sources = sources.filter_map(|id| rows.nodes.iter().find(|node| node.id == id));
    sources.try_for_each(|from| check_password(from, to, &user::current_role()))
}

fn check_password(from: &NodeRow, to: &NodeRow, registrant: &str) -> Result<()> {
    if user::is_superuser() || from.registered_by.as_ref() == Some(&user::current_role()) {
        return Ok(());
    }
    Err(Error::PasswordOfOthers {
        from: from.name.clone(),
        to: to.name.clone(),
        registrant: registrant.to_owned(),
    })
}

/// For a superuser who gives a password: where it will stand too, although no superuser vouches
/// for that server. Empty where there is no such place.
pub fn exposure(rows: &Rows, from: &NodeRow) -> String {
    let links = rows.links.iter().filter(|link| link.state != LinkState::Removing);
    let places = links.filter(|link| link.from_node == from.id).map(|link| link.to_node);
    let mut names: Vec<String> = places
        .filter_map(|id| rows.nodes.iter().find(|node| node.id == id))
        .filter(|node| node.registered_by.is_some() && user::is_superuser())
        .map(|node| format!("\"{}\"", node.name))
        .collect();
    names.dedup();
    match names.is_empty() {
        true => String::new(),
        false => format!(
            "; its password will stand on {} too, which no superuser vouches for",
            names.join(", ")
        ),
    }
}
