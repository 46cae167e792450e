//! What a run of `nodes.apply()` tells: a NOTICE for each step, a WARNING for each problem,
//! and one error in the end if links could not be made right.

use super::desired::Desired;
use super::{is_failure, problem_line};
use crate::catalog::{self, Event};
use crate::error::{Error, Result};
use crate::pg::spi;
use nodes_plan::desired::LinkId;
use nodes_plan::step::{Problem, ProblemKind, Step};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Default)]
pub struct Report {
    /// Links in the registry.
    pub total: usize,
    /// A node's own clean-up failed: it would fail in every further round.
    pub failed_without_link: bool,
    failed_links: BTreeSet<LinkId>,
    /// Links that the last plan cannot make right, each with what stands in the way.
    refused: Vec<(Option<LinkId>, String)>,
    lines: Vec<String>,
    waiting: Vec<String>,
    sqlstate: Option<String>,
    said: BTreeSet<String>,
    quiet: bool,
}

impl Report {
    /// One that only remembers: nobody listens.
    pub fn quiet() -> Self {
        Report { quiet: true, ..Report::default() }
    }

    /// What could not be made right, in words.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }

    /// Links of which a step failed: nothing more is done for them in this run.
    pub fn failed_links(&self) -> &BTreeSet<LinkId> {
        &self.failed_links
    }

    /// Those and the links that were refused.
    pub fn unmade_links(&self) -> BTreeSet<LinkId> {
        let refused = self.refused.iter().filter_map(|(link, _)| *link);
        refused.chain(self.failed_links.iter().copied()).collect()
    }

    /// Tells of steps that took effect as one.
    pub fn done(&self, desired: &Desired, steps: &[Step], took: Duration) {
        let Some(first) = steps.first().filter(|_| !self.quiet) else { return };
        let node = first.node.map_or("registry", |node| desired.registry.node_name(node));
        let link = match first.link {
            Some(link) => format!(" for link \"{}\"", desired.link_name(link)),
            None => String::new(),
        };
        let mut labels: Vec<&str> = steps.iter().map(|step| step.operation.label()).collect();
        labels.dedup();
        let ms = took.as_secs_f64() * 1000.0;
        pgrx::notice!("{node}: {}{link} ({ms:.1} ms)", labels.join(", "));
    }

    /// A link goes no further in this run.
    pub fn fail(&mut self, link: Option<LinkId>, line: String, sqlstate: Option<&str>) {
        self.failed_links.extend(link);
        self.failed_without_link |= link.is_none();
        self.lines.push(line);
        if self.sqlstate.is_none() {
            self.sqlstate = sqlstate.map(str::to_owned);
        }
    }

    /// Takes note of what the plan refuses, and tells of its other problems once. A refused
    /// link may still have steps, and what is refused now may be possible after them.
    pub fn problems(&mut self, desired: &Desired, problems: &[Problem]) {
        self.refused.clear();
        self.waiting.clear();
        for problem in problems {
            let line = problem_line(desired, problem);
            if is_failure(problem) {
                self.refused.push((problem.link, format!("{line}. {}", problem.hint)));
                continue;
            }
            if problem.kind == ProblemKind::Waiting {
                self.waiting.push(line.clone());
            }
            if self.said.insert(line.clone()) && !self.quiet {
                warn(line, Some(problem.hint.clone()));
            }
        }
    }

    /// Writes what happened into `nodes.event` and ends with an error if a link failed; else
    /// with what waits for a node.
    pub fn finish(mut self) -> Result<Vec<String>> {
        let links = self.unmade_links().len();
        if !self.refused.is_empty() && self.sqlstate.is_none() {
            self.sqlstate = Some("55000".to_owned());
        }
        self.lines.extend(self.refused.into_iter().map(|(_, line)| line));
        if self.lines.is_empty() {
            return Ok(self.waiting);
        }
        for line in &self.lines {
            let event = Event {
                node: None,
                link: None,
                kind: "apply failed",
                severity: "warning",
                message: line,
                detail: None,
            };
            spi::in_own_transaction(|| catalog::append_event(&event))?;
        }
        Err(Error::ApplyFailed {
            lines: self.lines,
            links,
            total: self.total,
            sqlstate: self.sqlstate,
        })
    }
}

/// A WARNING with a hint.
pub fn warn(message: String, hint: Option<String>) {
    let report = ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "");
    let report = match hint {
        Some(hint) => report.set_hint(hint),
        None => report,
    };
    report.report(PgLogLevel::WARNING);
}
