//! Which route of a port a request or connection takes: the first one, in order of precedence, whose rule holds.
//!
//! Rules are not tried one after the other. Those that name hosts are looked up by the host, and within these, or those for any
//! host, the ones that name paths by the path; only what is found there is tried. Pure.

mod compiled;
mod facts;
#[cfg(feature = "instructions")]
pub(crate) mod instructions;
mod prefixes;

use std::collections::HashMap;

use maesh_config::rule::{Matcher, Rule};

pub(crate) use self::facts::RouteFacts;
use self::{compiled::CompiledRule, prefixes::Prefixes};

/// The rules of all routes of a port, in order of precedence.
pub(crate) struct RouteIndex {
    rules: Vec<CompiledRule>,
    /// Those that hold for certain hosts alone.
    by_host: HashMap<Box<str>, ByPath, ahash::RandomState>,
    /// Those that may hold for any.
    for_any: ByPath,
}

/// Numbers of rules, the lowest first in each list.
#[derive(Default)]
struct ByPath {
    /// Those that hold for just these paths.
    exact: HashMap<Box<str>, Vec<u32>, ahash::RandomState>,
    /// Those that hold for paths that begin so.
    prefixes: Prefixes,
    /// Those that may hold for any path.
    for_any: Vec<u32>,
}

/// What of a path a rule asks, if it asks that of all that it holds for.
#[derive(Debug, PartialEq, Eq)]
enum PathKey<'a> {
    Exact(&'a str),
    Prefix(&'a str),
}

impl RouteIndex {
    /// Of these rules; `None` is one that holds for everything.
    ///
    /// # Errors
    /// The number of a rule with an expression that cannot be used.
    pub(crate) fn new<'a>(rules: impl IntoIterator<Item = Option<&'a Rule>>) -> Result<Self, usize> {
        let mut index = Self { rules: Vec::new(), by_host: HashMap::default(), for_any: ByPath::default() };
        let (mut hosts, mut for_any) = (HashMap::<&str, Lists<'_>>::new(), Lists::default());
        for (number, rule) in rules.into_iter().enumerate() {
            index.rules.push(CompiledRule::of(rule).map_err(|_| number)?);
            let id = u32::try_from(number).map_err(|_| number)?;
            match rule.and_then(Rule::hosts) {
                Some(names) => names.into_iter().for_each(|name| hosts.entry(name).or_default().add(id, rule)),
                None => for_any.add(id, rule),
            }
        }
        index.by_host = hosts.into_iter().map(|(name, lists)| (name.into(), lists.into_by_path())).collect();
        index.for_any = for_any.into_by_path();
        Ok(index)
    }

    /// The number of the first rule that holds.
    pub(crate) fn find(&self, facts: &RouteFacts<'_>) -> Option<usize> {
        let of_host = self.by_host.get(facts.host);
        let mut best = u32::MAX;
        for by_path in of_host.into_iter().chain([&self.for_any]) {
            by_path.lists(facts.path(), |list| {
                let holds = |number: &&u32| **number < best && self.rules[**number as usize].holds(facts);
                if let Some(found) = list.iter().take_while(|number| **number < best).find(holds) {
                    best = *found;
                }
            });
        }
        (best != u32::MAX).then_some(best as usize)
    }
}

/// The lists of a [`ByPath`] while it is made.
#[derive(Default)]
struct Lists<'a> {
    exact: HashMap<&'a str, Vec<u32>>,
    prefixes: HashMap<&'a str, Vec<u32>>,
    for_any: Vec<u32>,
}

impl<'a> Lists<'a> {
    fn add(&mut self, number: u32, rule: Option<&'a Rule>) {
        let Some(keys) = rule.and_then(paths) else {
            return add(&mut self.for_any, number);
        };
        for key in keys {
            match key {
                PathKey::Exact(path) => add(self.exact.entry(path).or_default(), number),
                PathKey::Prefix(path) => add(self.prefixes.entry(path).or_default(), number),
            }
        }
    }

    fn into_by_path(self) -> ByPath {
        ByPath {
            exact: self.exact.into_iter().map(|(path, list)| (path.into(), list)).collect(),
            prefixes: Prefixes::new(self.prefixes),
            for_any: self.for_any,
        }
    }
}

/// A rule that names a host or path twice is in its list once.
fn add(list: &mut Vec<u32>, number: u32) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}

impl ByPath {
    /// Calls `look` with each list in which a rule for this path may be.
    fn lists<'s>(&'s self, path: &str, mut look: impl FnMut(&'s [u32])) {
        if let Some(list) = self.exact.get(path) {
            look(list);
        }
        self.prefixes.of(path).for_each(&mut look);
        look(&self.for_any);
    }
}

/// The paths that a request must have one of, or begin with, for a rule to hold; `None` where it may hold for others.
fn paths(rule: &Rule) -> Option<Vec<PathKey<'_>>> {
    match rule {
        // One of the parts is enough.
        Rule::All(parts) => parts.iter().find_map(paths),
        Rule::Any(parts) => {
            let all: Option<Vec<Vec<PathKey<'_>>>> = parts.iter().map(paths).collect();
            all.map(|all| all.into_iter().flatten().collect())
        }
        Rule::Is(Matcher::Path(path)) => Some(vec![PathKey::Exact(path)]),
        Rule::Is(Matcher::PathPrefix(path)) => Some(vec![PathKey::Prefix(path)]),
        Rule::Not(_) | Rule::Is(_) => None,
    }
}

#[cfg(test)]
mod tests;
