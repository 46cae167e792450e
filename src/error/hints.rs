//! What to do about an error: the next action, in a sentence.

use super::Error;
use nodes_plan::name::MAX_NAME_BYTES;
use nodes_plan::node_health::NO_SESSIONS;

impl Error {
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::BadName { .. } => {
                format!("Choose a name of 1 to {MAX_NAME_BYTES} bytes without control characters.")
            }
            Error::BadConninfo { hint, .. } => (*hint).into(),
            Error::PasswordOfOthers { to, .. } => format!(
                "Have a superuser make the change, or vouch for node \"{to}\" by calling \
                 nodes.alter_node() with its conninfo."
            ),
            Error::UnknownOption { known, .. } => format!("Known are: {}.", known.join(", ")),
            Error::OptionOfOtherKind { known, .. } => format!("It has: {}.", known.join(", ")),
            Error::Peer(error) => return error.hint.clone(),
            Error::Refused { hint, .. } => (*hint).into(),
            _ => {
                let fixed = self.hint_on_names().or_else(|| self.hint_on_links());
                let fixed = fixed.or_else(|| self.hint_on_rights()).or_else(|| self.hint_on_runs());
                return fixed.map(str::to_owned);
            }
        };
        Some(hint)
    }

    fn hint_on_names(&self) -> Option<&'static str> {
        Some(match self {
            Error::UnknownNode { .. } => {
                "Correct the name, or register the node with nodes.add_node()."
            }
            Error::UnknownLink { .. } => {
                "Correct the name, or add the link with nodes.add_standby(), \
                 nodes.add_subscription() or nodes.add_foreign_schema()."
            }
            Error::UnknownName { .. } => {
                "nodes.status and nodes.link_status show the names that there are."
            }
            Error::DuplicateNode { .. } => {
                "Choose another name, or use nodes.alter_node() to change that node."
            }
            Error::DuplicateLink { .. } => {
                "Give the new link another name, or use nodes.alter_link()."
            }
            Error::BadTableName(_) => "Write schema.table, each part quoted as in SQL.",
            Error::SchemaTaken { .. } | Error::SchemaLinked { .. } => {
                "Give the foreign schema a name of its own."
            }
            Error::BadOption { .. } => "Correct it, or leave it out; nothing was changed.",
            Error::OptionOfNode(_) => {
                "Use nodes.alter_node() or nodes.set_password(); all links of the node follow."
            }
            _ => return None,
        })
    }

    fn hint_on_links(&self) -> Option<&'static str> {
        Some(match self {
            Error::SelfLink(_) => {
                "A link needs two nodes; where only one is named, the other is this server."
            }
            Error::AlreadyStandby(..) => "Remove that link first with nodes.remove_link().",
            Error::StandbyCycle { .. } => {
                "Remove one of these links first with nodes.remove_link()."
            }
            Error::SameGroup { .. } => {
                "A standby has all data of its primary already; subscribe from or to a node of \
                 another group, or remove these links first with nodes.remove_link()."
            }
            Error::CannotPause(_) => {
                "Remove the link with nodes.remove_link(), and add it again later."
            }
            Error::CannotResync(_) => {
                "A standby is made anew by nodes.clone_standby(); a foreign schema holds no rows."
            }
            Error::ResyncOfPaused(_) => "Let it go on with nodes.resume_link() first.",
            Error::NodeRemoving(_) => "Run nodes.apply() to finish the removal first.",
            Error::NodeInUse { .. } => {
                "Pass cascade => true to remove them too, or call nodes.remove_link()."
            }
            _ => return None,
        })
    }

    fn hint_on_rights(&self) -> Option<&'static str> {
        Some(match self {
            Error::ForbiddenOption { .. } => {
                "Leave it out, or have a superuser register the node: such options act with the \
                 rights of the server's operating system user."
            }
            Error::PasswordMissing(_) => {
                "Pass password => …; without one the server would connect with its own identity."
            }
            Error::BadPassword(_) => {
                "A line of a password file cannot hold it: choose another password on that server."
            }
            Error::PasswordUnused(_) => {
                "It was registered by a role that is not a superuser: have its pg_hba.conf ask for \
                 a password, or a superuser call nodes.alter_node()."
            }
            Error::NoSessions(_) => NO_SESSIONS,
            Error::WrongIdentity { .. } => {
                "Correct its address, or say with nodes.alter_node() that the server was replaced."
            }
            Error::SuperuserOnly(_) => "Use nodes.remove_node(), or ask a superuser.",
            _ => return None,
        })
    }

    fn hint_on_runs(&self) -> Option<&'static str> {
        Some(match self {
            Error::NotRegistered { .. } => {
                "Register it with nodes.add_node(), or name the node in the call."
            }
            Error::PassiveCopy => {
                "If this database is to act for the registry, call nodes.take_over()."
            }
            Error::Passive { .. } => {
                "If this server is to act for the registry, call nodes.take_over()."
            }
            Error::NoRegistry => "Register a first node with nodes.add_node().",
            Error::InTransactionBlock(_) => {
                "It commits each step by itself: call it outside BEGIN … COMMIT."
            }
            Error::Superseded(_) => {
                "Go on at the primary of its group: nodes.rejoin(), called there, makes this server a standby."
            }
            Error::InRecovery(_) => "Call it on the primary of this server's group.",
            Error::ApplyFailed { .. } => {
                "Correct the cause and run nodes.apply() again; what is done stays done."
            }
            Error::TeardownUnfinished { .. } => {
                "Run nodes.teardown() again when the cause is corrected or the node is back; \
                 nodes.forget_node() gives up a node that never will be. \
                 DROP EXTENSION would forget what is left: do not run it yet."
            }
            Error::Busy { .. } => "Wait for it, or end it with pg_cancel_backend(), and try again.",
            Error::NoConvergence(_) => {
                "See nodes.plan(); somebody may be changing the same objects."
            }
            Error::Timeout(_) => "nodes.status and nodes.link_status say why.",
            _ => return None,
        })
    }
}
