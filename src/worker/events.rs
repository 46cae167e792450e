//! Changes become rows of `nodes.event`, notifications and lines of the server log. A standby
//! has only its log.

use crate::catalog;
use crate::pg::{process, spi};
use nodes_plan::commits::Change;
use nodes_plan::transition::{Severity, Transition};
use std::time::Duration;

/// One change, in words.
pub struct Event {
    pub node: Option<String>,
    pub link: Option<String>,
    pub kind: &'static str,
    pub severity: Severity,
    pub message: String,
    pub rule: &'static str,
    pub hint: Option<String>,
}

impl Event {
    pub fn of_node<S>(name: &str, transition: &Transition<S>) -> Event {
        let event = Event::of(transition, format!("node \"{name}\" {}", transition.message));
        Event { node: Some(name.to_owned()), ..event }
    }

    pub fn of_link<S>(name: &str, transition: &Transition<S>) -> Event {
        let event = Event::of(transition, format!("link \"{name}\" {}", transition.message));
        Event { link: Some(name.to_owned()), ..event }
    }

    pub fn of_commits(name: &str, change: Change, hint: Option<String>) -> Event {
        Event {
            node: Some(name.to_owned()),
            link: None,
            kind: change.kind,
            severity: change.severity,
            message: format!("commits on node \"{name}\" {}", change.message),
            rule: "",
            hint,
        }
    }

    fn of<S>(transition: &Transition<S>, message: String) -> Event {
        Event {
            node: None,
            link: None,
            kind: transition.kind,
            severity: transition.severity,
            message,
            rule: transition.rule,
            hint: transition.hint.clone(),
        }
    }

    fn detail(&self) -> String {
        serde_json::json!({ "rule": self.rule, "hint": self.hint }).to_string()
    }
}

/// Tells of changes, in the order in which they came.
pub fn tell(events: &[Event]) {
    if events.is_empty() {
        return;
    }
    for event in events {
        process::log(&event.message, None, event.hint.as_deref());
    }
    if spi::in_recovery() {
        return;
    }
    let written = spi::in_own_transaction(|| events.iter().try_for_each(write));
    if let Err(error) = written {
        process::log("could not write to nodes.event", Some(&error.to_string()), None);
    }
}

fn write(event: &Event) -> crate::error::Result<()> {
    catalog::append_event(&catalog::Event {
        node: event.node.as_deref(),
        link: event.link.as_deref(),
        kind: event.kind,
        severity: event.severity.label(),
        message: &event.message,
        detail: Some(&event.detail()),
    })
}

/// Removes events that are older than this.
pub fn forget_older_than(retention: Duration) {
    if retention.is_zero() || spi::in_recovery() {
        return;
    }
    // What is not removed now is removed next time.
    let _ = spi::in_own_transaction(|| catalog::forget_events(retention));
}
