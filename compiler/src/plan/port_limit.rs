//! How many ports of the proxies the Services of one namespace may take.
//!
//! Each port is a listening socket in every proxy, and the proxies have so many ports for own addresses. Without a bound,
//! whoever may create Services in one namespace could take all of them. Older Services come first, so a new one
//! never takes a port from an older one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ahash::{AHashMap, AHashSet};
use maesh_config::ServiceName;

use super::service::{Age, Plan};

/// What Services need, and which of them need too much.
#[derive(Debug, Default)]
pub(crate) struct PortLimit {
    by_namespace: AHashMap<Arc<str>, BTreeMap<Age, PortNeeds>>,
    ages: AHashMap<ServiceName, Age>,
    over: AHashSet<ServiceName>,
}

/// The ports of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PortNeeds {
    /// So many that are its alone.
    Own(usize),
    /// These numbers on the shared address, each together with everybody else's of that number.
    Shared(Vec<u16>),
}

impl PortLimit {
    /// Notes what `name` needs by its `plan`; `None` where it is not meshed. Returns whether that is news.
    pub(crate) fn note(&mut self, name: &ServiceName, plan: Option<&Plan>) -> bool {
        let needs = |plan: &Plan| match plan.own {
            true => PortNeeds::Own(plan.ports.len()),
            false => PortNeeds::Shared(plan.ports.iter().map(|port| port.number).collect()),
        };
        let now = plan.map(|plan| (plan.age.clone(), needs(plan)));
        let of_namespace = self.by_namespace.entry(name.namespace.clone()).or_default();
        let before = self.ages.remove(name).and_then(|age| of_namespace.remove_entry(&age));
        let news = before != now;
        if let Some((age, needs)) = now {
            self.ages.insert(name.clone(), age.clone());
            of_namespace.insert(age, needs);
        }
        if of_namespace.is_empty() {
            self.by_namespace.remove(&name.namespace);
        }
        if plan.is_none() {
            self.over.remove(name);
        }
        news
    }

    /// Decides anew who needs more than `limit` in `namespace`. Returns the Services for which that changed.
    pub(crate) fn recompute(&mut self, namespace: &str, limit: usize) -> Vec<ServiceName> {
        let (mut used, mut numbers, mut changed) = (0, BTreeSet::<u16>::new(), Vec::new());
        for (age, needs) in self.by_namespace.get(namespace).into_iter().flatten() {
            let more = match needs {
                PortNeeds::Own(count) => *count,
                PortNeeds::Shared(all) => all.iter().filter(|number| !numbers.contains(*number)).count(),
            };
            let over = used + more > limit;
            if !over {
                used += more;
                if let PortNeeds::Shared(all) = needs {
                    numbers.extend(all);
                }
            }
            let news = if over { self.over.insert(age.name.clone()) } else { self.over.remove(&age.name) };
            if news {
                changed.push(age.name.clone());
            }
        }
        changed
    }

    /// Whether the ports of `name` are too many.
    pub(crate) fn is_over(&self, name: &ServiceName) -> bool {
        self.over.contains(name)
    }
}
