//! The objects of SMI.

use std::{collections::BTreeMap, sync::Arc};

use ahash::AHashMap;
use maesh_config::{ServiceName, model::Account};

use super::{
    Changed, Id,
    targets::{Effect, TargetsByAge},
};
use crate::{
    facts::Fact,
    kinds::{HttpRouteGroup, ObjectKind, PortRoute, TrafficSplit, TrafficTarget},
};

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct SmiObjects {
    splits: AHashMap<Id, Arc<TrafficSplit>>,
    splits_of: AHashMap<ServiceName, BTreeMap<Arc<str>, Arc<TrafficSplit>>>,
    groups: AHashMap<Id, Arc<HttpRouteGroup>>,
    tcp_routes: AHashMap<Id, Arc<PortRoute>>,
    udp_routes: AHashMap<Id, Arc<PortRoute>>,
    targets: AHashMap<Id, Arc<TrafficTarget>>,
    targets_of: AHashMap<Account, TargetsByAge>,
}

impl SmiObjects {
    /// A split by its identity.
    pub(crate) fn split(&self, id: &Id) -> Option<&Arc<TrafficSplit>> {
        self.splits.get(id)
    }

    /// The splits of a Service's traffic, by name.
    pub(crate) fn splits_of<'a>(
        &'a self,
        service: &ServiceName,
    ) -> impl Iterator<Item = &'a Arc<TrafficSplit>> + use<'a> {
        self.splits_of.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// A group by its identity.
    pub(crate) fn group(&self, id: &Id) -> Option<&Arc<HttpRouteGroup>> {
        self.groups.get(id)
    }

    /// A TCPRoute by its identity.
    pub(crate) fn tcp_route(&self, id: &Id) -> Option<&Arc<PortRoute>> {
        self.tcp_routes.get(id)
    }

    /// A UDPRoute by its identity.
    pub(crate) fn udp_route(&self, id: &Id) -> Option<&Arc<PortRoute>> {
        self.udp_routes.get(id)
    }

    /// A target by its identity.
    pub(crate) fn target(&self, id: &Id) -> Option<&Arc<TrafficTarget>> {
        self.targets.get(id)
    }

    /// The targets whose destination is this ServiceAccount and that count, the oldest first.
    pub(crate) fn targets_of<'a>(
        &'a self,
        account: &Account,
    ) -> impl Iterator<Item = &'a Arc<TrafficTarget>> + use<'a> {
        self.targets_of.get(account).into_iter().flat_map(TargetsByAge::counting)
    }

    /// Whether its ServiceAccount has so many older targets that this one does not count.
    pub(crate) fn is_beyond(&self, target: &TrafficTarget) -> bool {
        self.targets_of.get(&*target.destination).is_some_and(|targets| targets.is_beyond(target))
    }

    pub(super) fn count(&self, kind: ObjectKind) -> usize {
        match kind {
            ObjectKind::TrafficSplit => self.splits.len(),
            ObjectKind::HttpRouteGroup => self.groups.len(),
            ObjectKind::TcpRoute => self.tcp_routes.len(),
            ObjectKind::UdpRoute => self.udp_routes.len(),
            ObjectKind::TrafficTarget => self.targets.len(),
            _ => 0,
        }
    }

    pub(super) fn ids(&self, kind: ObjectKind) -> Vec<&Id> {
        match kind {
            ObjectKind::TrafficSplit => self.splits.keys().collect(),
            ObjectKind::HttpRouteGroup => self.groups.keys().collect(),
            ObjectKind::TcpRoute => self.tcp_routes.keys().collect(),
            ObjectKind::UdpRoute => self.udp_routes.keys().collect(),
            ObjectKind::TrafficTarget => self.targets.keys().collect(),
            _ => Vec::new(),
        }
    }

    /// Notes a split, or that it is gone.
    pub(super) fn set_split(&mut self, id: Id, split: Option<TrafficSplit>, changed: Changed<'_>) {
        if self.splits.get(&id).map(|old| &**old) == split.as_ref() {
            return;
        }
        if let Some(old) = self.splits.remove(&id) {
            let root = ServiceName::new(id.namespace.clone(), old.service.clone());
            if let Some(splits) = self.splits_of.get_mut(&root) {
                splits.remove(&id.name);
                if splits.is_empty() {
                    self.splits_of.remove(&root);
                }
            }
            changed(Fact::Splits(root));
        }
        if let Some(split) = split.map(Arc::new) {
            let root = ServiceName::new(id.namespace.clone(), split.service.clone());
            self.splits_of.entry(root.clone()).or_default().insert(id.name.clone(), split.clone());
            changed(Fact::Splits(root));
            self.splits.insert(id.clone(), split);
        }
        changed(Fact::Split(id));
    }

    /// Notes a target, or that it is gone.
    pub(super) fn set_target(&mut self, id: Id, target: Option<TrafficTarget>, changed: Changed<'_>) {
        if self.targets.get(&id).map(|old| &**old) == target.as_ref() {
            return;
        }
        if let Some(old) = self.targets.remove(&id) {
            let account = Account::clone(&old.destination);
            let targets = self.targets_of.entry(account.clone()).or_default();
            say(targets.remove(&old), &account, changed);
            if targets.is_empty() {
                self.targets_of.remove(&account);
            }
        }
        if let Some(target) = target.map(Arc::new) {
            let account = Account::clone(&target.destination);
            let targets = self.targets_of.entry(account.clone()).or_default();
            say(targets.insert(target.clone()), &account, changed);
            self.targets.insert(id.clone(), target);
        }
        changed(Fact::Target(id));
    }

    /// Notes a group, or that it is gone.
    pub(super) fn set_group(&mut self, id: Id, group: Option<HttpRouteGroup>, changed: Changed<'_>) {
        if set(&mut self.groups, &id, group) {
            changed(Fact::RouteGroup(id));
        }
    }

    /// Notes a TCPRoute, or that it is gone.
    pub(super) fn set_tcp_route(&mut self, id: Id, route: Option<PortRoute>, changed: Changed<'_>) {
        if set(&mut self.tcp_routes, &id, route) {
            changed(Fact::TcpRoute(id));
        }
    }

    /// Notes a UDPRoute, or that it is gone.
    pub(super) fn set_udp_route(&mut self, id: Id, route: Option<PortRoute>, changed: Changed<'_>) {
        if set(&mut self.udp_routes, &id, route) {
            changed(Fact::UdpRoute(id));
        }
    }
}

/// Says what changes with a target of `account`, besides that target.
fn say(Effect { of_counting, crossed }: Effect, account: &Account, changed: Changed<'_>) {
    if of_counting {
        changed(Fact::Targets(account.clone()));
    }
    if let Some(name) = crossed {
        changed(Fact::Target(Id::new(account.namespace.clone(), name)));
    }
}

/// Whether that is news.
fn set<T: PartialEq>(all: &mut AHashMap<Id, Arc<T>>, id: &Id, object: Option<T>) -> bool {
    if all.get(id).map(|old| &**old) == object.as_ref() {
        return false;
    }
    match object {
        Some(object) => all.insert(id.clone(), Arc::new(object)),
        None => all.remove(id),
    };
    true
}
