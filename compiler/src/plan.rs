//! What objects mean to the mesh: a function of the objects alone. There is no time here, and no proxy.

pub(crate) mod access;
pub mod annotations;
pub(crate) mod endpoints;
pub(crate) mod forbidden;
mod policy;
pub(crate) mod port_limit;
mod reference;
mod routes;
pub(crate) mod service;
pub(crate) mod splits;
pub(crate) mod workload;

use std::sync::Arc;

use ahash::AHashMap;
use maesh_config::ServiceName;

use self::{
    forbidden::Forbidden,
    port_limit::PortLimit,
    service::{Draft, Plan},
};
use crate::{
    compile::Config,
    diagnostic::{Diagnostic, Reason},
    facts::Fact,
    kinds::EndpointSlice,
    step::Step,
};

/// The plans of all meshed Services.
#[derive(Debug)]
pub(crate) struct Plans {
    plans: AHashMap<ServiceName, Plan>,
    /// Planned anew in this compilation, and not taken over yet.
    drafts: AHashMap<ServiceName, Draft>,
    port_limit: PortLimit,
    pub(crate) forbidden: Forbidden,
}

impl Plans {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            plans: AHashMap::new(),
            drafts: AHashMap::new(),
            port_limit: PortLimit::default(),
            forbidden: Forbidden::new(config),
        }
    }

    /// The plan of a Service; `None` if it is not meshed.
    pub(crate) fn get(&self, name: &ServiceName) -> Option<&Plan> {
        self.plans.get(name)
    }

    /// Plans a Service anew. What its namespace has room for may be decided only after that.
    pub(crate) fn draft(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        let service = step.view.service(name);
        let mut draft = service.map_or_else(Draft::default, |service| service::plan(service, step));
        if draft.waits && self.plans.contains_key(name) {
            return;
        }
        if self.port_limit.note(name, draft.plan.as_ref()) {
            step.changed(Fact::Needs(name.namespace.clone()));
        }
        if let Some(service) = service.filter(|_| self.port_limit.is_over(name)) {
            draft = draft.without_ports(service, step.config);
        }
        self.drafts.insert(name.clone(), draft);
        step.changed(Fact::Draft(name.clone()));
    }

    /// Decides which Services of a namespace have more ports than there is room for.
    pub(crate) fn limit(&mut self, namespace: &str, step: &mut Step<'_>) {
        for name in self.port_limit.recompute(namespace, step.config.ports_per_namespace) {
            step.changed(Fact::OverLimit(name));
        }
    }

    /// Takes over the draft of a Service. Returns the plan of before if another one holds now.
    pub(crate) fn adopt(&mut self, name: &ServiceName, step: &mut Step<'_>) -> Option<Option<Plan>> {
        let Draft { plan, found, .. } = self.drafts.remove(name)?;
        step.out.diagnose(&format!("service/{name}"), found);
        if self.plans.get(name) == plan.as_ref() {
            return None;
        }
        step.changed(Fact::Plan(name.clone()));
        Some(match plan {
            Some(plan) => self.plans.insert(name.clone(), plan),
            None => self.plans.remove(name),
        })
    }

    /// What is odd about a slice. Whether its addresses count depends on its Service.
    pub(crate) fn check_slice(&self, slice: &EndpointSlice, step: &Step<'_>) -> Vec<Diagnostic> {
        let name = slice.service.as_ref().map(|name| ServiceName::new(slice.meta.namespace.clone(), name.clone()));
        let meshed = name.filter(|name| {
            step.view.note(Fact::Plan(name.clone()));
            self.plans.contains_key(name)
        });
        let service = meshed.as_ref().and_then(|name| step.view.service(name));
        endpoints::check(
            slice,
            service.map(|service| &**service),
            meshed.is_some().then_some(&self.forbidden),
            &step.view,
        )
    }
}

impl Draft {
    /// A Service whose ports are too many for its namespace: meshed without any.
    fn without_ports(mut self, service: &crate::kinds::Service, config: &Config) -> Self {
        let Some(plan) = self.plan else { return self };
        let (ports, namespace): (_, &Arc<str>) = (plan.ports.len(), &plan.name().namespace);
        let (limit, unserved) = (config.ports_per_namespace, config.unserved());
        let text = format!(
            "the Services of namespace {namespace} need more than {limit} ports of the proxies. Older Services come \
             first, and there is no room for the {ports} of this one: its name answers {unserved}. Bypass \
             Services that need no mesh, or raise --ports-per-namespace."
        );
        let bad = Diagnostic::of(Reason::TooManyPorts, "Service", &service.meta, "spec.ports", text);
        self.found.push(bad.value(ports.to_string()).using(unserved));
        self.plan = Some(Plan { ports: Vec::new(), own: false, one_address: false, ..plan });
        self
    }
}
