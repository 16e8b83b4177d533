//! The objects of SMI.

use std::{collections::BTreeMap, sync::Arc};

use ahash::AHashMap;
use maesh_config::ServiceName;

use super::{Changed, Id};
use crate::{
    facts::Fact,
    kinds::{HttpRouteGroup, TrafficSplit},
};

/// TrafficSplits and HTTPRouteGroups.
#[derive(Debug, Default)]
pub(crate) struct SmiObjects {
    splits: AHashMap<Id, Arc<TrafficSplit>>,
    splits_of: AHashMap<ServiceName, BTreeMap<Arc<str>, Arc<TrafficSplit>>>,
    groups: AHashMap<Id, Arc<HttpRouteGroup>>,
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

    pub(super) fn count_splits(&self) -> usize {
        self.splits.len()
    }

    pub(super) fn count_groups(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn split_ids(&self) -> impl Iterator<Item = &Id> {
        self.splits.keys()
    }

    pub(super) fn group_ids(&self) -> impl Iterator<Item = &Id> {
        self.groups.keys()
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

    /// Notes a group, or that it is gone.
    pub(super) fn set_group(&mut self, id: Id, group: Option<HttpRouteGroup>, changed: Changed<'_>) {
        if self.groups.get(&id).map(|old| &**old) == group.as_ref() {
            return;
        }
        match group {
            Some(group) => self.groups.insert(id.clone(), Arc::new(group)),
            None => self.groups.remove(&id),
        };
        changed(Fact::RouteGroup(id));
    }
}
