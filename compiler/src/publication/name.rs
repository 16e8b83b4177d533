//! What is published of each Service's name: where it leads, and whether anybody may hear of it yet.

use std::time::Instant;

use maesh_config::{
    Kind, ServiceName,
    model::{Answer, Name, NamePort, Protocol, Resource},
};

use super::{Publication, TableEntry};
use crate::{
    compile::Addressing,
    diagnostic::{Diagnostic, Reason},
    facts::{Fact, View},
    placement::{Placement, ServicePlacement, listener::OwnListener, places::Served},
    plan::service::{Plan, Port},
    step::Step,
};

impl Publication {
    /// Publishes the name of a Service, or withholds it.
    pub(crate) fn name(&mut self, name: &ServiceName, plan: Option<&Plan>, placement: &Placement, step: &mut Step<'_>) {
        let (Some(plan), Some(placed)) = (plan, placement.get(name)) else {
            step.out.set(Kind::Name, &name.to_string(), None);
            step.out.untable(name);
            step.out.diagnose(&format!("bind/{name}"), Vec::new());
            return;
        };
        let served = is_served(plan, placed);
        let acknowledged = served && self.acknowledged(placed, &step.view);
        let fixed = plan.own || plan.one_address;
        let answer = self.answer(plan, served, acknowledged, placement, step);
        let headless = answers_endpoints(plan, step.bypass());
        let plain = if headless { self.ready_addresses(name).to_vec() } else { plan.cluster_ips.clone() };
        let ports = plan.ports.iter().zip(&placed.listens).map(|(port, listen)| name_port(port, *listen)).collect();
        let mut resource = Name { service: name.clone(), answer, plain, headless, ports };

        let failed = self.failed(name, placement, step);
        let unserved = !served || !failed.is_empty();
        let bypass = plan.bypass || step.bypass();
        let address = match (&step.config.addressing, bypass || unserved, fixed) {
            (_, true, _) => resource.plain.first().copied(),
            (Addressing::Range(range), false, false) => Some(range.shared()),
            (Addressing::Range(_), false, true) => placement.own_address(name, &step.view),
            (Addressing::Cluster, false, false) => None,
            (Addressing::Cluster, false, true) => match &resource.answer {
                Answer::Fixed(addresses) => addresses.first().copied(),
                Answer::Node | Answer::Plain | Answer::Unserved => resource.plain.first().copied(),
            },
        };
        let settled = acknowledged || unserved || placed.needs.is_empty();
        step.out.table(TableEntry::of(&resource, address, bypass, settled));

        let listen_of = |number| {
            let mut listens = plan.ports.iter().zip(&placed.listens);
            listens.find(|(port, _)| port.number == number).and_then(|(_, listen)| *listen)
        };
        let former = self.former(name).iter().map(|it| name_port(&it.port, listen_of(it.port.number)));
        resource.ports.extend(former);
        resource.ports.sort_unstable();
        // The proxies that listened on its own address before this process started may be on their way back.
        let may_come_back = fixed && served && resource.answer == Answer::Unserved;
        let serves = acknowledged && !matches!(resource.answer, Answer::Plain | Answer::Unserved);
        if may_come_back && !self.has_complete_proxies(&step.view) {
            // Withheld: dns goes on with what it knew.
        } else if let Some(until) = self.withheld_until(name, serves || plan.bypass, step) {
            step.timers.set(until, name);
        } else {
            step.out.set(Kind::Name, &name.to_string(), Some(Resource::Name(resource)));
        }
        step.out.diagnose(&format!("bind/{name}"), failed);
    }

    /// What a name resolves to.
    fn answer(
        &self,
        plan: &Plan,
        served: bool,
        acknowledged: bool,
        placement: &Placement,
        step: &mut Step<'_>,
    ) -> Answer {
        let place = placement.served(plan, step);
        if let Served::At(_, Some(at)) | Served::NotBefore(Some(at)) = &place {
            step.timers.set(*at, plan.name());
        }
        match (plan.bypass || !served, plan.own || plan.one_address, place) {
            (true, ..) if plan.bypass => Answer::Plain,
            (true, ..) => Answer::Unserved,
            (false, false, _) => Answer::Node,
            (false, true, Served::At(addresses, _)) if acknowledged => Answer::Fixed(addresses),
            (false, true, _) => Answer::Unserved,
        }
    }

    /// Until when a new name that no proxy `serves` is withheld: it would be answered with the plain address, which
    /// kube-proxy on the callers' nodes does not serve yet either. Until then it is better answered that there is none.
    fn withheld_until(&self, name: &ServiceName, serves: bool, step: &Step<'_>) -> Option<Instant> {
        let until = self.since(name)? + step.config.own_settle;
        let concerned = step.config.addressing == Addressing::Cluster && !serves && until > step.now;
        let new = concerned && !step.out.has(Kind::Name, &name.to_string());
        (new && self.has_complete_proxies(&step.view) && self.anyone_ready(&step.view)).then_some(until)
    }

    /// Whether every ready proxy listens on all that a Service needs, and there is one.
    pub(crate) fn acknowledged(&self, placed: &ServicePlacement, view: &View<'_>) -> bool {
        !placed.needs.is_empty()
            && placed.needs.iter().all(|id| {
                view.note(Fact::Bound(id.clone()));
                self.bound.everywhere(id)
            })
    }

    /// What proxies could not bind of a Service's own listeners.
    fn failed(&self, name: &ServiceName, placement: &Placement, step: &Step<'_>) -> Vec<Diagnostic> {
        let listeners = placement.listeners.of(name);
        listeners.filter_map(|listener| self.failure(name, listener, step)).collect()
    }

    fn failure(&self, name: &ServiceName, listener: &OwnListener, step: &Step<'_>) -> Option<Diagnostic> {
        let (_, number) = listener.owner.as_ref()?;
        step.view.note(Fact::Bound(listener.id.clone()));
        let mut failed = self.bound.failed(&listener.id);
        // One stands for all: what one proxy lacks, five hundred do, and mostly for the same reason.
        let (proxy, why) = failed.next()?;
        let service = step.view.service(name)?;
        let others = match failed.len() {
            0 => String::new(),
            1 => " (and 1 other)".to_owned(),
            others => format!(" (and {others} others)"),
        };
        let unserved = step.config.unserved();
        let text = format!(
            "port {number} is not served by proxy {proxy}{others}: {why}. Until then, the Service's name answers {unserved}."
        );
        let bad = Diagnostic::of(Reason::ListenFailed, "Service", &service.meta, "spec.ports", text);
        Some(bad.value(number.to_string()).using(unserved))
    }
}

/// Whether each of its ports has a listening port, and there is one.
fn is_served(plan: &Plan, placed: &ServicePlacement) -> bool {
    placed.listens.iter().all(Option::is_some) && !plan.ports.is_empty()
}

fn name_port(port: &Port, listen: Option<u16>) -> NamePort {
    NamePort {
        number: port.number,
        protocol: port.protocol,
        name: port.name.clone(),
        listen: listen.unwrap_or(port.number),
        scheme: (port.protocol == Protocol::Http).then_some(port.policy.scheme),
    }
}

/// Whether the plain addresses of a Service are those of its endpoints. Of a Service that has no ClusterIP although it is
/// not headless, as in manifests that no cluster has seen, only where it is bypassed on purpose: its endpoints need not
/// listen on its port.
pub(crate) fn answers_endpoints(plan: &Plan, bypass: bool) -> bool {
    plan.headless || (plan.cluster_ips.is_empty() && (plan.bypass || bypass))
}
