//! Which diagnostics concern one Service.
//!
//! The compiler keeps what it finds by place, so those of a Service are looked up. What a source finds, such as values that
//! cannot be read, comes as one list of all objects, and is narrowed to the objects that decide about requests to the
//! Service.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use maesh_config::{ServiceName, model::Account};

use super::super::Compiler;
use crate::{
    diagnostic::{Diagnostic, ObjectRef, Reason, did_you_mean},
    facts::View,
    index::Id,
    kinds::{ObjectKind, RuleKind},
    plan::{endpoints, workload},
};

/// Kinds without which no Service is known as it is.
const DELIVERED: [ObjectKind; 3] = [ObjectKind::Namespace, ObjectKind::Service, ObjectKind::EndpointSlice];

impl Compiler {
    /// What is wrong with a Service, and with what decides about requests to it.
    pub(super) fn concerning(&self, name: &ServiceName) -> Vec<Diagnostic> {
        let objects = self.objects_of(name);
        let place = |what: &str| format!("{what}/{name}");
        let own = ["service", "place", "bind", "access"].map(place);
        let others = objects.iter().filter_map(place_of);
        let found = own.into_iter().chain(others).flat_map(|place| self.out.diagnostics_at(&place).to_vec());
        let is_known = self.index.services.contains_key(name);
        let of_source = self.out.diagnostics_at("source").iter().filter(|found| {
            is_of_delivery(found)
                || objects.contains(&found.object)
                || self.is_slice_by_name(&found.object, name)
                || (!is_known && may_hide(found, name))
        });
        let mut all: Vec<Diagnostic> = Vec::new();
        for diagnostic in found.chain(of_source.cloned()) {
            if !all.contains(&diagnostic) {
                all.push(diagnostic);
            }
        }
        all
    }

    /// Why the Service of a ClusterIP, or of a name that cannot be read, may be unknown.
    pub(super) fn concerning_unknown(&self, text: &str) -> Vec<Diagnostic> {
        let by_address = text.parse::<IpAddr>().is_ok();
        let is_it = |found: &&Diagnostic| {
            is_of_delivery(found) || (by_address && (is_file(found) || &*found.object.kind == "Service"))
        };
        self.out.diagnostics_at("source").iter().filter(is_it).cloned().collect()
    }

    /// The objects that decide about requests to a Service.
    fn objects_of(&self, name: &ServiceName) -> BTreeSet<ObjectRef> {
        let of = |kind: ObjectKind, namespace: &str, name: &str| ObjectRef::new(kind.as_str(), namespace, name);
        let namespace = &*name.namespace;
        let mut objects =
            BTreeSet::from([of(ObjectKind::Service, namespace, &name.name), of(ObjectKind::Namespace, "", namespace)]);
        objects
            .extend(self.index.slices_of(name).map(|slice| of(ObjectKind::EndpointSlice, namespace, &slice.meta.name)));
        for split in self.index.smi.splits_of(name) {
            objects.insert(of(ObjectKind::TrafficSplit, namespace, &split.meta.name));
            objects.extend(split.groups.iter().map(|group| of(ObjectKind::HttpRouteGroup, namespace, group)));
        }
        let (pods, accounts) = self.owners_of(name);
        objects.extend(pods.iter().map(|pod| of(ObjectKind::Pod, &pod.namespace, &pod.name)));
        for target in accounts.iter().flat_map(|account| self.index.smi.targets_of(account)) {
            let namespace = &*target.meta.namespace;
            objects.insert(of(ObjectKind::TrafficTarget, namespace, &target.meta.name));
            let kind = |kind: RuleKind| match kind {
                RuleKind::Http => ObjectKind::HttpRouteGroup,
                RuleKind::Tcp => ObjectKind::TcpRoute,
                RuleKind::Udp => ObjectKind::UdpRoute,
            };
            objects.extend(target.rules.iter().map(|rule| of(kind(rule.kind), namespace, &rule.name)));
        }
        objects
    }

    /// The pods at its endpoints, and the ServiceAccounts that these run as.
    fn owners_of(&self, name: &ServiceName) -> (BTreeSet<Id>, BTreeSet<Account>) {
        let view = View::new(&self.index);
        let (mut pods, mut accounts) = (BTreeSet::new(), BTreeSet::new());
        let Some(plan) = self.plans.get(name) else { return (pods, accounts) };
        let endpoints = endpoints::of(plan, &self.plans.forbidden, &view);
        let addresses = endpoints.ports.iter().flat_map(|port| port.endpoints.iter().map(|one| one.address.ip()));
        for address in addresses.collect::<BTreeSet<IpAddr>>() {
            let Some(found) = workload::of_address(&view, address.to_canonical()) else { continue };
            let Some(namespace) = found.namespace else { continue };
            pods.insert(Id::new(namespace.clone(), found.name));
            accounts.extend(found.service_account.map(|name| Account { namespace, name }));
        }
        (pods, accounts)
    }

    /// Whether `object` is an EndpointSlice that could not be read at all, and is called like one of the Service. Whose it is
    /// says a label, which is not known then; Kubernetes names slices SERVICE-SUFFIX.
    fn is_slice_by_name(&self, object: &ObjectRef, service: &ServiceName) -> bool {
        let Some(namespace) = object.namespace.as_ref().filter(|namespace| **namespace == service.namespace) else {
            return false;
        };
        if &*object.kind != ObjectKind::EndpointSlice.as_str()
            || self.index.slice(&Id::new(namespace.clone(), object.name.clone())).is_some()
        {
            return false;
        }
        let fits =
            |name: &str| object.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let is_nearer = |other: &Arc<str>| other.len() > service.name.len() && fits(other);
        fits(&service.name) && !self.index.services_in(namespace).any(|other| is_nearer(&other.meta.name))
    }
}

/// Where the compiler keeps what is wrong with an object that is not the Service.
fn place_of(object: &ObjectRef) -> Option<String> {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let kind = match &*object.kind {
        "Namespace" => return Some(format!("namespace/{}", object.name)),
        "EndpointSlice" => "slice",
        "TrafficSplit" => "split",
        "TrafficTarget" => "target",
        _ => return None,
    };
    Some(format!("{kind}/{namespace}/{}", object.name))
}

/// Whether it is about what delivers the objects that make a Service.
fn is_of_delivery(found: &Diagnostic) -> bool {
    found.reason == Reason::WatchFailed && DELIVERED.iter().any(|kind| kind.as_str() == &*found.object.kind)
}

fn is_file(found: &Diagnostic) -> bool {
    &*found.object.kind == "File"
}

/// Whether it may be the reason why the Service is not known: a file that holds it, a document without a name, or a slip in its
/// kind.
fn may_hide(found: &Diagnostic, name: &ServiceName) -> bool {
    let object = &found.object;
    let service = ObjectKind::Service.as_str();
    let is_here = object.namespace.as_ref().is_none_or(|namespace| *namespace == name.namespace);
    is_file(found)
        || (&*object.kind == service && object.name.is_empty() && is_here)
        || (found.reason == Reason::UnknownKind && did_you_mean(&object.kind, [service]).is_some())
}
