//! Rules of grants, made ready when a request first asks for them.
//!
//! Whoever writes TrafficTargets in one namespace decides how many expressions there are, and making them ready takes a thousand
//! times as long as reading them. So an update makes none ready: Services of others must not wait for it. Grants with the same rule
//! have one of it, and so have the grants that follow after a change.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use maesh_config::rule::Rule;

use crate::routes::{CompiledRule, RouteFacts};

/// One rule.
pub(super) struct GrantRule {
    told: Rule,
    /// Without a value where this version cannot use it.
    ready: OnceLock<Option<CompiledRule>>,
}

/// Different rules.
#[derive(Default)]
pub(super) struct GrantRules(HashSet<ByRule, ahash::RandomState>);

struct ByRule(Arc<GrantRule>);

impl GrantRule {
    /// Whether it holds for a request.
    pub(super) fn holds(&self, facts: &RouteFacts<'_>) -> bool {
        let ready = self.ready.get_or_init(|| CompiledRule::of(Some(&self.told)).ok());
        ready.as_ref().is_some_and(|rule| rule.holds(facts))
    }

    #[cfg(test)]
    pub(super) fn is_ready(&self) -> bool {
        self.ready.get().is_some()
    }
}

impl GrantRules {
    /// The one of this rule: that which is here, or else that which was here `before`.
    pub(super) fn share(&mut self, rule: &Rule, before: &Self) -> Arc<GrantRule> {
        if let Some(here) = self.get(rule) {
            return here.clone();
        }
        let make = || Arc::new(GrantRule { told: rule.clone(), ready: OnceLock::new() });
        let shared = before.get(rule).cloned().unwrap_or_else(make);
        self.0.insert(ByRule(shared.clone()));
        shared
    }

    /// The one of this rule, if it is here.
    pub(super) fn get(&self, rule: &Rule) -> Option<&Arc<GrantRule>> {
        self.0.get(rule).map(|by_rule| &by_rule.0)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Borrow<Rule> for ByRule {
    fn borrow(&self) -> &Rule {
        &self.0.told
    }
}

impl Hash for ByRule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.told.hash(state);
    }
}

impl PartialEq for ByRule {
    fn eq(&self, other: &Self) -> bool {
        self.0.told == other.0.told
    }
}

impl Eq for ByRule {}
