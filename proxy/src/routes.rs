//! Which route of a port a request or connection takes: the first one, in order of precedence, whose rule holds.
//!
//! Rules are not tried one after the other. Those that name hosts are looked up by the host, and within these, or those for any
//! host, the ones that name paths by the path, and those that name no path by a parameter, cookie or field that they ask for; only
//! what is found there is tried. Pure.

mod compiled;
mod expression;
mod facts;
#[cfg(feature = "instructions")]
pub(crate) mod instructions;
mod prefixes;

use std::{borrow::Cow, collections::HashMap};

use maesh_config::rule::{Matcher, Rule};
use smallvec::SmallVec;

use self::prefixes::Prefixes;
pub(crate) use self::{
    compiled::CompiledRule,
    facts::{ReadFacts, RouteFacts, decoded, method},
};

/// The rules of all routes of a port, in order of precedence.
pub(crate) struct RouteIndex {
    rules: Vec<CompiledRule>,
    /// Those that hold for certain hosts alone.
    by_host: HashMap<Box<str>, ByPath, ahash::RandomState>,
    /// Those that may hold for any.
    for_any: ByPath,
    /// Hashes pairs of a name and a value.
    hashes: ahash::RandomState,
}

/// Numbers of rules, the lowest first in each list.
#[derive(Default)]
struct ByPath {
    /// Those that hold for just these paths.
    exact: HashMap<Box<str>, Vec<u32>, ahash::RandomState>,
    /// Those that hold for paths that begin so.
    prefixes: Prefixes,
    /// Those that hold with just this parameter of the query, cookie or field, by the hash of its name and value. Two may have the
    /// same hash, so what is found is tried.
    query: ByHash,
    cookies: ByHash,
    fields: ByHash,
    /// Those that may hold for any path.
    for_any: Vec<u32>,
}

type ByHash = HashMap<u64, Vec<u32>, ahash::RandomState>;

/// What of a path a rule asks, if it asks that of all that it holds for.
#[derive(Debug, PartialEq, Eq)]
enum PathKey<'a> {
    Exact(Cow<'a, str>),
    Prefix(Cow<'a, str>),
}

/// The same of a parameter, cookie or field.
#[derive(Debug, PartialEq, Eq)]
enum PairKey<'a> {
    Query(&'a str, &'a str),
    Cookie(&'a str, &'a str),
    Field(&'a str, &'a str),
}

impl RouteIndex {
    /// Of these rules; `None` is one that holds for everything.
    ///
    /// # Errors
    /// The number of a rule with an expression that cannot be used.
    pub(crate) fn new<'a>(rules: impl IntoIterator<Item = Option<&'a Rule>>) -> Result<Self, usize> {
        let (by_host, for_any, hashes) = (HashMap::default(), ByPath::default(), ahash::RandomState::new());
        let mut index = Self { rules: Vec::new(), by_host, for_any, hashes };
        let (mut hosts, mut for_any) = (HashMap::<&str, Lists<'_>>::new(), Lists::default());
        for (number, rule) in rules.into_iter().enumerate() {
            index.rules.push(CompiledRule::of(rule).map_err(|_| number)?);
            let id = u32::try_from(number).map_err(|_| number)?;
            match rule.and_then(Rule::hosts) {
                Some(names) => names.into_iter().for_each(|name| hosts.entry(name).or_default().add(id, rule)),
                None => for_any.add(id, rule),
            }
        }
        let by_host = hosts.into_iter().map(|(name, lists)| (name.into(), lists.into_by_path(&index.hashes)));
        index.by_host = by_host.collect();
        index.for_any = for_any.into_by_path(&index.hashes);
        Ok(index)
    }

    /// The number of the first rule that holds.
    pub(crate) fn find(&self, facts: &RouteFacts<'_>) -> Option<usize> {
        let of_host = self.by_host.get(facts.host());
        let mut best = u32::MAX;
        for by_path in of_host.into_iter().chain([&self.for_any]) {
            by_path.lists(facts, &self.hashes, |list| {
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
    exact: HashMap<Cow<'a, str>, Vec<u32>>,
    prefixes: HashMap<Cow<'a, str>, Vec<u32>>,
    pairs: Vec<(PairKey<'a>, u32)>,
    for_any: Vec<u32>,
}

impl<'a> Lists<'a> {
    fn add(&mut self, number: u32, rule: Option<&'a Rule>) {
        let Some(keys) = rule.and_then(paths) else {
            match rule.and_then(pairs) {
                Some(keys) => self.pairs.extend(keys.into_iter().map(|key| (key, number))),
                None => add(&mut self.for_any, number),
            }
            return;
        };
        for key in keys {
            match key {
                PathKey::Exact(path) => add(self.exact.entry(path).or_default(), number),
                PathKey::Prefix(path) => add(self.prefixes.entry(path).or_default(), number),
            }
        }
    }

    fn into_by_path(self, hashes: &ahash::RandomState) -> ByPath {
        let mut made = ByPath {
            exact: self.exact.into_iter().map(|(path, list)| (path.into(), list)).collect(),
            prefixes: Prefixes::new(self.prefixes),
            for_any: self.for_any,
            ..ByPath::default()
        };
        for (key, number) in self.pairs {
            let (lists, name, value) = match key {
                PairKey::Query(name, value) => (&mut made.query, name, value),
                PairKey::Cookie(name, value) => (&mut made.cookies, name, value),
                PairKey::Field(name, value) => (&mut made.fields, name, value),
            };
            add(lists.entry(hash(hashes, name, value.as_bytes())).or_default(), number);
        }
        made
    }
}

/// A rule that names a host or path twice is in its list once.
fn add(list: &mut Vec<u32>, number: u32) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}

impl ByPath {
    /// Calls `look` with each list in which a rule for such a request may be.
    fn lists(&self, facts: &RouteFacts<'_>, hashes: &ahash::RandomState, mut look: impl FnMut(&[u32])) {
        let path = facts.path();
        if let Some(list) = self.exact.get(path) {
            look(list);
        }
        self.prefixes.of(path).for_each(&mut look);
        look(&self.for_any);
        if !self.query.is_empty() || !self.cookies.is_empty() || !self.fields.is_empty() {
            look(&self.with_pairs(facts, hashes));
        }
    }

    /// The rules that ask for a parameter, cookie or field which the request has: each once, or one of many alternatives would be
    /// tried as often.
    fn with_pairs(&self, facts: &RouteFacts<'_>, hashes: &ahash::RandomState) -> SmallVec<[u32; 16]> {
        let mut found = SmallVec::new();
        let mut add = |lists: &ByHash, name: &str, value: &[u8]| {
            found.extend(lists.get(&hash(hashes, name, value)).into_iter().flatten().copied());
        };
        if !self.query.is_empty() {
            facts.query().iter().for_each(|(name, value)| add(&self.query, name, value.as_bytes()));
        }
        if !self.cookies.is_empty() {
            facts.cookies().iter().for_each(|(name, value)| add(&self.cookies, name, value.as_bytes()));
        }
        if !self.fields.is_empty() {
            facts.fields.iter().for_each(|(name, value)| add(&self.fields, name.as_str(), value.as_bytes()));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn hash(hashes: &ahash::RandomState, name: &str, value: &[u8]) -> u64 {
    hashes.hash_one((name, value))
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
        Rule::Is(Matcher::Path(path)) => Some(vec![PathKey::Exact(decoded(path))]),
        Rule::Is(Matcher::PathPrefix(path)) => Some(vec![PathKey::Prefix(decoded(path))]),
        Rule::Not(_) | Rule::Is(_) => None,
    }
}

/// The parameters, cookies or fields of which a request must have one for a rule to hold; `None` where it may hold without.
fn pairs(rule: &Rule) -> Option<Vec<PairKey<'_>>> {
    match rule {
        Rule::All(parts) => parts.iter().find_map(pairs),
        Rule::Any(parts) => {
            let all: Option<Vec<Vec<PairKey<'_>>>> = parts.iter().map(pairs).collect();
            all.map(|all| all.into_iter().flatten().collect())
        }
        Rule::Is(Matcher::Query(name, value)) => Some(vec![PairKey::Query(name, value)]),
        Rule::Is(Matcher::Cookie(name, value)) => Some(vec![PairKey::Cookie(name, value)]),
        Rule::Is(Matcher::Header(name, value)) => Some(vec![PairKey::Field(name, value)]),
        Rule::Not(_) | Rule::Is(_) => None,
    }
}

#[cfg(test)]
mod tests;
