//! Which endpoints of a backend port a caller may reach. Pure.
//!
//! Grants are those of the ServiceAccounts that the endpoints belong to. Who is admitted by none is denied, and so is everybody
//! where nothing is known. A grant for some paths has to hold for whatever an endpoint may take the path for.

mod paths;
mod rules;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use http::{HeaderValue, header, request};
use maesh_config::{
    model::{AccessSource, Account, AccountAccess, Grant, Workload, WorkloadKind},
    rule::Rule,
};
use smallvec::SmallVec;

use self::{
    paths::{is_read_differently, readings},
    rules::{GrantRule, GrantRules},
};
use crate::{reason::Reason, routes::RouteFacts};

/// Who may reach the endpoints of a backend port, as the controller says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccessFacts {
    /// By the ServiceAccount that the endpoints belong to.
    pub(crate) accounts: Vec<AccountAccess>,
    /// They were compiled while access control is off.
    pub(crate) open: bool,
}

/// Who may reach the endpoints of a backend port.
#[derive(Default)]
pub(crate) struct Access {
    /// As it was told.
    told: AccessFacts,
    /// Coarse time at which that came.
    since: u32,
    /// By place of the ServiceAccount.
    accounts: Vec<GrantsBySource>,
    /// The rules of all grants.
    rules: GrantRules,
    /// One of them asks for the path.
    asks_for_path: bool,
}

/// What each caller is granted. No rules are everything.
type GrantsBySource = HashMap<Account, Vec<Arc<[Arc<GrantRule>]>>, ahash::RandomState>;

/// A request in each form that an endpoint may take it for. Nearly all have one.
type Readings<'a> = SmallVec<[RouteFacts<'a>; 1]>;

/// Endpoints that a caller may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// Access control is off: all.
    All,
    /// Those of the ServiceAccounts at these places.
    Of(SmallVec<[u16; 4]>),
}

/// A request, as far as grants ask for it.
#[derive(Clone, Copy)]
pub(crate) struct AskedRequest<'a> {
    /// `Host`, where it is not in the head.
    host: Option<&'a HeaderValue>,
    pub(crate) head: &'a request::Parts,
}

impl<'a> AskedRequest<'a> {
    /// The request with this head and host, as it was received.
    pub(crate) fn new(host: Option<&'a HeaderValue>, head: &'a request::Parts) -> Self {
        Self { host, head }
    }

    /// The request with this head, as the endpoint gets it.
    pub(crate) fn of(head: &'a request::Parts) -> Self {
        Self { host: None, head }
    }

    /// The head of it by itself, its host within.
    pub(crate) fn with_host(&self) -> request::Parts {
        let mut head = self.head.clone();
        if let Some(host) = self.host {
            head.headers.insert(header::HOST, host.clone());
        }
        head
    }

    fn host(&self) -> Option<&'a [u8]> {
        let field = self.host.or_else(|| self.head.headers.get(header::HOST)).map(HeaderValue::as_bytes);
        field.or_else(|| Some(self.head.uri.authority()?.as_str().as_bytes()))
    }
}

impl Access {
    /// Of these grants, in the place of those of `self`: rules that it has already are as ready as there. A rule with an expression
    /// that this version cannot use grants nothing. They came at `now`, the coarse time.
    pub(crate) fn replaced_by(&self, told: AccessFacts, now: u32) -> Self {
        let mut rules = GrantRules::default();
        let accounts = told.accounts.iter().map(|access| by_source(access, &mut rules, &self.rules)).collect();
        let asks =
            |access: &AccountAccess| access.grants.iter().flat_map(|grant| &grant.rules).any(Rule::asks_for_path);
        let asks_for_path = told.accounts.iter().any(asks);
        Self { told, since: now, accounts, rules, asks_for_path }
    }

    /// Whether it is of these grants.
    pub(crate) fn is_of(&self, told: &AccessFacts) -> bool {
        self.told == *told
    }

    /// The coarse time since which nobody has said who may reach them, because access control was off when they were compiled.
    pub(crate) fn open_since(&self) -> Option<u32> {
        self.told.open.then_some(self.since)
    }

    /// The TrafficTargets that admit `caller`, written `namespace/name`, for an explanation.
    pub(crate) fn admitting(&self, caller: &Account, request: Option<AskedRequest<'_>>) -> BTreeSet<String> {
        let facts = request.map(facts);
        let holds = |rule: &GrantRule| facts.as_ref().is_some_and(|facts| holds(rule, facts));
        let admits = |grant: &&Grant| {
            let mut rules = grant.rules.iter().filter_map(|rule| self.rules.get(rule));
            grant.sources.iter().any(|source| **source == *caller)
                && (grant.rules.is_empty() || rules.any(|it| holds(it)))
        };
        let of = |access: &AccountAccess, grant: &Grant| format!("{}/{}", access.account.namespace, grant.target);
        let all = self
            .told
            .accounts
            .iter()
            .flat_map(|access| access.grants.iter().filter(admits).map(move |it| of(access, it)));
        all.collect()
    }

    /// Whether `caller` may reach any endpoint, with `request` if it makes one; `None` where there are no pods, so that nobody is
    /// asked for.
    pub(crate) fn admits(&self, caller: Option<&Account>, request: Option<AskedRequest<'_>>) -> Option<bool> {
        (!self.has_no_pods()).then(|| !self.admitted(caller, request).is_none())
    }

    /// Why a caller that is admitted to nothing is refused: where paths decide, one that endpoints read differently cannot be
    /// judged, and its caller should know that this is why.
    pub(crate) fn refusal(&self, request: Option<AskedRequest<'_>>) -> Reason {
        let is_unclear = |request: AskedRequest<'_>| is_read_differently(request.head.uri.path());
        if self.asks_for_path && request.is_some_and(is_unclear) { Reason::BadRequest } else { Reason::Denied }
    }

    /// Whether no endpoint belongs to any pod.
    pub(crate) fn has_no_pods(&self) -> bool {
        self.accounts.is_empty()
    }

    /// The endpoints that `caller` may reach, with `request` if it makes one.
    pub(crate) fn admitted(&self, caller: Option<&Account>, request: Option<AskedRequest<'_>>) -> Admitted {
        let Some(caller) = caller else { return Admitted::Of(SmallVec::new()) };
        let mut read: Option<Readings<'_>> = None;
        let mut admits = |grants: &GrantsBySource| {
            let grants = grants.get(caller).map_or(&[][..], Vec::as_slice);
            grants.iter().any(|rules| {
                rules.is_empty()
                    || request.is_some_and(|request| {
                        let facts = read.get_or_insert_with(|| facts(request));
                        rules.iter().any(|rule| holds(rule, facts))
                    })
            })
        };
        let places = self.accounts.iter().enumerate().filter(|(_, grants)| admits(grants));
        Admitted::Of(places.filter_map(|(place, _)| u16::try_from(place).ok()).collect())
    }
}

fn by_source(access: &AccountAccess, rules: &mut GrantRules, before: &GrantRules) -> GrantsBySource {
    let mut all = GrantsBySource::default();
    for grant in &access.grants {
        let rules: Arc<[_]> = grant.rules.iter().map(|rule| rules.share(rule, before)).collect();
        for source in &grant.sources {
            all.entry(Account::clone(source)).or_default().push(rules.clone());
        }
    }
    all
}

/// Who a caller is: the ServiceAccount of the pod that has the address alone. What no pod can have may be given one: `sources`
/// say so.
pub(crate) fn account(caller: IpAddr, workload: Option<&Workload>, sources: &[AccessSource]) -> Option<Account> {
    match workload.map(|workload| workload.kind) {
        Some(WorkloadKind::Pod | WorkloadKind::Resolver) => {
            let pod = workload?;
            Some(Account { namespace: pod.namespace.clone()?, name: pod.service_account.clone()? })
        }
        // The address of a pod that nobody knows (any more).
        Some(WorkloadKind::PodRange) => None,
        Some(WorkloadKind::Node) | None => {
            let holding = sources.iter().filter(|source| source.range.contains(&caller));
            Some(holding.max_by_key(|source| source.range.prefix_len())?.account.clone())
        }
    }
}

/// The request with each path that an endpoint may see in it; none if that cannot be said.
fn facts(request: AskedRequest<'_>) -> Readings<'_> {
    let of = |path| RouteFacts::of_request(request.host(), path, request.head);
    readings(request.head.uri.path()).unwrap_or_default().into_iter().map(of).collect()
}

/// Whether `rule` holds however an endpoint reads the request.
fn holds(rule: &GrantRule, facts: &[RouteFacts<'_>]) -> bool {
    !facts.is_empty() && facts.iter().all(|facts| rule.holds(facts))
}

impl Admitted {
    /// Whether the endpoints of the ServiceAccount at this place are among them; `None` is one that belongs to nobody.
    pub(crate) fn has(&self, account: Option<u16>) -> bool {
        match self {
            Self::All => true,
            Self::Of(places) => account.is_some_and(|place| places.contains(&place)),
        }
    }

    /// Whether every endpoint is among them, whomever it belongs to.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Whether there is none.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::Of(places) if places.is_empty())
    }
}

#[cfg(test)]
mod tests;
