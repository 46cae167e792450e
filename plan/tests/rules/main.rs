//! One case for every rule: the smallest change of a healthy world in which it fires, and what
//! it says or does then. Rules are found by number, so a rule without a case fails the last
//! test.

mod case;
mod foreign;
mod group;
mod shared;
mod standby;
mod subscription;
mod synchronous;

use case::Case;
use nodes_plan::rules;
use std::collections::BTreeSet;

/// A rule's number, a world in which it fires, and part of what it then says.
fn cases() -> Vec<(&'static str, Case, &'static str)> {
    [
        standby::standby_cases(),
        subscription::subscription_cases(),
        subscription::subscription_removals(),
        foreign::foreign_cases(),
        shared::shared_cases(),
        group::sibling_cases(),
        group::unmanaged_cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_rule_fires_in_its_case() {
    for (rule, case, expected) in cases() {
        case.fires(rule, expected);
    }
}

#[test]
fn every_rule_has_a_case_and_a_number_of_its_own() {
    let with_case: BTreeSet<&str> = cases().iter().map(|(rule, ..)| *rule).collect();
    const ELSEWHERE: [&str; 5] = ["health", "failover", "promotion", "rejoin", "switchover"];
    let mut seen = BTreeSet::new();
    for rule in rules().iter().filter(|rule| rule.id != "RG00") {
        // Those of health and of failover have their cases in files of their own.
        let has_case = ELSEWHERE.contains(&rule.purpose) || with_case.contains(rule.id);
        assert!(has_case, "no case for {} ({})", rule.id, rule.when);
        assert!(seen.insert(rule.id), "{} is there twice", rule.id);
    }
}

#[test]
fn a_made_link_needs_nothing() {
    for case in [Case::standby_made(), Case::subscription_made(), Case::foreign_made()] {
        assert_eq!(case.lines(), [""; 0]);
    }
}
