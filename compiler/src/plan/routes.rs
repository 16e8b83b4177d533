//! The routes of one port, from the annotation in force for it.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use maesh_config::{
    ServiceName,
    model::{Backend, Protocol, Route},
};

use super::{
    annotations::{
        self, AppliedAnnotation, WrittenAnnotation,
        routes::{ROUTES, RouteLine, WrittenRoutes},
        target::Target,
    },
    policy::PolicyReader,
};
use crate::diagnostic::{Diagnostic, Reason, shortened};

/// Lines of one annotation of which is said what is wrong with each.
const SAID: usize = 10;

impl PolicyReader<'_, '_> {
    /// The routes of the port, in order of precedence, and the names that they claim.
    pub(super) fn routes(&mut self) -> (Vec<Route>, Vec<Arc<str>>) {
        let asked = self.get(&ROUTES).filter(|_| self.protocol != Protocol::Udp);
        let Some(AppliedAnnotation { written, value: Some(routes) }) = asked else { return Default::default() };
        self.say_what_is_bad(written, &routes);
        let mut lines: Vec<&RouteLine> = routes.lines.iter().filter(|line| line.fits(self.protocol)).collect();
        // As Traefik has it. The order among equals stays.
        lines.sort_by_key(|line| Reverse(line.length));
        let claims = lines.iter().flat_map(|line| self.claims(written, line)).collect::<BTreeSet<_>>();
        let routes = lines.into_iter().map(|line| self.route(written, line)).collect();
        (routes, claims.into_iter().collect())
    }

    /// The names that a rule claims: those that it says, but for names of the mesh and of the cluster, which mean a Service
    /// already.
    fn claims(&mut self, written: WrittenAnnotation<'_>, line: &RouteLine) -> Vec<Arc<str>> {
        let mut claimed = Vec::new();
        for host in line.rule.hosts().unwrap_or_default() {
            let config = self.step.config;
            let zones = config.zones.iter().map(ToString::to_string);
            let mut domains = zones.chain([format!("svc.{}", config.cluster_domain), "svc".to_owned()]);
            let service = domains.find_map(|domain| Some(host.strip_suffix(&*domain)?.strip_suffix('.')?.to_owned()));
            let own = format!("{}.{}", self.service.meta.name, self.service.meta.namespace);
            match service {
                None => claimed.push(Arc::from(host)),
                Some(service) if service == own => {}
                Some(_) => {
                    let text = format!(
                        "annotation {}, line {}: the host {host} is a name of the mesh or of the cluster, which only the Service \
                         of that name can have; requests for it do not come here. Write a host of your own, or this Service's.",
                        written.key, line.number
                    );
                    self.say_of_line(written, text, host, "no claim");
                }
            }
        }
        claimed
    }

    fn route(&mut self, written: WrittenAnnotation<'_>, line: &RouteLine) -> Route {
        let own = ServiceName::new(self.service.meta.namespace.clone(), self.service.meta.name.clone());
        let backends = line.targets.iter().map(|(target, weight)| {
            let to = target.seen_from(&own, self.number);
            Backend { service: to.service, port: to.port, weight: *weight }
        });
        let backends: Vec<Backend> = backends.collect();
        for (backend, (target, _)) in backends.iter().zip(&line.targets) {
            self.check_target(written, line, backend, target);
        }
        Route { rule: Some(line.rule.clone()), backends, not_understood: None }
    }

    /// Says so where a target does not exist: its share of the requests is refused until it does.
    fn check_target(&mut self, written: WrittenAnnotation<'_>, line: &RouteLine, to: &Backend, target: &Target) {
        let missing = match self.step.view.service(&to.service) {
            None => format!("Service {}, which does not exist", to.service),
            Some(there) if !there.ports.iter().any(|port| port.number.port() == Some(to.port)) => {
                format!("port {} of Service {}, which has no such port", to.port, to.service)
            }
            Some(_) => return,
        };
        let text = format!(
            "annotation {}, line {}: the target {} is {missing}; its share of the requests is answered 500 `bad_backend`. \
             Create it, or correct the line.",
            written.key, line.number, target.service
        );
        self.say_of_line(written, text, &target.service, "nothing");
    }

    fn say_what_is_bad(&mut self, written: WrittenAnnotation<'_>, routes: &WrittenRoutes) {
        let key = written.key;
        for bad in routes.bad.iter().take(SAID) {
            let text = format!(
                "annotation {key}, line {}, column {}: {}. The line is ignored, the others hold. Correct it, or put # in front.",
                bad.number, bad.column, bad.what
            );
            self.say_of_line(written, text, &bad.text, "the other lines");
        }
        if let Some(more) = routes.bad.len().checked_sub(SAID).filter(|more| *more > 0) {
            let text =
                format!("annotation {key}: {more} more lines are wrong; they are ignored. Correct those above first.");
            self.say_of_line(written, text, "", "the other lines");
        }
        for line in &routes.lines {
            for hint in line.hints.iter().take(1) {
                let text = format!(
                    "annotation {key}, line {}, column {}: this is how Traefik 2 writes it, and it is understood. Write {} today.",
                    line.number, hint.column, hint.now
                );
                self.say_of_line(written, text, &line.rule.to_string(), "the same");
            }
            let covered = |protocol: Protocol| line.fits(protocol);
            if !covered(Protocol::Http) && !covered(Protocol::Tcp) {
                let text = format!(
                    "annotation {key}, line {}: no port has all that this rule asks for: HostSNI is of TLS, which is not \
                     opened, the other matchers of HTTP. The line is ignored. Split it, or take one of them out.",
                    line.number
                );
                self.say_of_line(written, text, &line.rule.to_string(), "the other lines");
            }
        }
    }

    fn say_of_line(&mut self, written: WrittenAnnotation<'_>, text: String, value: &str, using: &str) {
        let field = annotations::field(written.key);
        let bad = Diagnostic::of(Reason::InvalidAnnotation, "Service", &self.service.meta, &field, text);
        let bad = bad.value(shortened(value)).using(using);
        // Said once, however many ports it covers.
        if !self.found.contains(&bad) {
            self.found.push(bad);
        }
    }
}
