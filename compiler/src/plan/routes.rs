//! The routes of one port, from the annotation in force for it.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use maesh_config::{
    ServiceName,
    model::{Backend, Protocol, Route},
};

use super::{
    annotations::{
        self, AppliedAnnotation, InForce, WrittenAnnotation,
        routes::{ROUTES, RouteLine, WrittenRoutes},
    },
    policy::PolicyReader,
    reference::{self, Unusable},
    service::Port,
};
use crate::{
    diagnostic::{Diagnostic, Reason, shortened},
    kinds::Service,
};

/// Lines of one annotation of which is said what is wrong with each.
const SAID: usize = 10;

/// What is said of lines that no port of the Service can use.
pub(super) fn without_effect(service: &Service, ports: &[Port], in_force: InForce<'_>) -> Vec<Diagnostic> {
    let mut covered: Vec<(WrittenAnnotation<'_>, Vec<Protocol>)> = Vec::new();
    for port in ports {
        let asked = in_force.of_port(&ROUTES, port.number, port.name.as_deref());
        let Some(AppliedAnnotation { written, .. }) = asked else { continue };
        match covered.iter_mut().find(|(other, _)| other.key == written.key) {
            Some((_, protocols)) => protocols.push(port.protocol),
            None => covered.push((written, vec![port.protocol])),
        }
    }
    let mut lost = Vec::new();
    for (written, protocols) in &covered {
        let routes = in_force.routes.read(written.text);
        let is_lost = |line: &&RouteLine| !protocols.iter().any(|protocol| line.fits(*protocol));
        lost.extend(routes.lines.iter().filter(is_lost).map(|line| (*written, line.clone())));
    }
    lost.truncate(SAID);
    let said = lost.into_iter().map(|(written, line)| {
        let text = format!(
            "annotation {}, line {}: no port that it is for has all that the rule asks for: HostSNI is of TLS on ports that carry \
             TCP, and the other matchers but ClientIP are of HTTP. The line is ignored. Correct it, or set traffic-type.",
            written.key, line.number
        );
        let field = annotations::field(written.key);
        let bad = Diagnostic::of(Reason::InvalidAnnotation, "Service", &service.meta, &field, text);
        bad.value(shortened(&line.rule.to_string())).using("the other lines")
    });
    said.collect()
}

/// Lines whose rule another line before them has, with the number of that line.
fn repeated(lines: &[RouteLine]) -> impl Iterator<Item = (&RouteLine, usize)> {
    let mut first = HashMap::new();
    lines.iter().filter_map(move |line| {
        let first = *first.entry(&line.rule).or_insert(line.number);
        (first != line.number).then_some((line, first))
    })
}

impl PolicyReader<'_, '_> {
    /// The routes of the port, in order of precedence, and the names that they claim.
    pub(super) fn routes(&mut self) -> (Vec<Route>, Vec<Arc<str>>) {
        let asked = self.get(&ROUTES);
        let Some(AppliedAnnotation { written, .. }) = asked else { return Default::default() };
        let read = self.in_force.routes.read(written.text);
        self.say_what_is_bad(written, &read);
        let mut lines: Vec<&RouteLine> = read.lines.iter().filter(|line| line.fits(self.protocol)).collect();
        // As Traefik has it. The order among equals stays.
        lines.sort_by_key(|line| Reverse(line.length));
        let routes: Vec<_> = lines.iter().map(|line| self.route(line)).collect();
        if !self.in_force.routes.has_room(&routes) {
            let text = format!(
                "annotation {}: the rules of all ports of the Service together have more than 1 MiB, so port {} has none of them. \
                 Use fewer rules, or write them for single ports: {}.routes.",
                written.key, self.number, self.number
            );
            self.say_of_line(written, text, "", "no routes on this port");
            return Default::default();
        }
        let claims = lines.iter().flat_map(|line| self.claims(written, line)).collect::<BTreeSet<_>>();
        self.check_targets(written, &lines, &routes);
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
            let short = host.split_once('.').filter(|(_, namespace)| !namespace.contains('.'));
            let meant = short.map(|(name, namespace)| ServiceName::new(namespace, name));
            let is_there = meant.is_some_and(|name| self.step.view.service(&name).is_some());
            match service.or_else(|| is_there.then(|| host.to_owned())) {
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

    fn route(&self, line: &RouteLine) -> Route {
        let own = ServiceName::new(self.service.meta.namespace.clone(), self.service.meta.name.clone());
        let backends = line.targets.iter().map(|(target, weight)| {
            let to = target.seen_from(&own, self.number);
            Backend { service: to.service, port: to.port, weight: *weight }
        });
        Route { rule: Some(line.rule.clone()), backends: backends.collect(), not_understood: None }
    }

    /// Says which targets do not exist: their share of the requests is refused until they do.
    fn check_targets(&mut self, written: WrittenAnnotation<'_>, lines: &[&RouteLine], routes: &[Route]) {
        let mut missing = Vec::new();
        for (line, route) in lines.iter().zip(routes) {
            // One that gets nothing harms nobody.
            let with_share = route.backends.iter().zip(&line.targets).filter(|(backend, _)| backend.weight > 0);
            let unusable = |to: &Backend| reference::unusable(&to.service, to.port, self.protocol, self.step);
            missing.extend(with_share.filter_map(|(to, (target, _))| Some((line.number, target, unusable(to)?))));
        }
        for (number, target, Unusable { what, next }) in missing.iter().take(SAID) {
            let text = format!(
                "annotation {}, line {number}: the backend {target} is {what}; its share of the requests is answered 500 \
                 `bad_backend`. {next}, or correct the line.",
                written.key
            );
            self.say_of_line(written, text, &target.to_string(), "nothing");
        }
        if let Some(more) = missing.len().checked_sub(SAID).filter(|more| *more > 0) {
            let (backends, their, create) = match more {
                1 => ("1 more backend does not exist".to_owned(), "its", "Create it, or correct the line."),
                _ => (format!("{more} more backends do not exist"), "their", "Create them, or correct the lines."),
            };
            let text = format!(
                "annotation {}: {backends}; {their} share of the requests is answered 500 `bad_backend`. {create}",
                written.key
            );
            self.say_of_line(written, text, "", "nothing");
        }
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
            let lines = if more == 1 { "line is wrong" } else { "lines are wrong" };
            let text = format!("annotation {key}: {more} more {lines} and ignored. Correct the first {SAID} first.");
            self.say_of_line(written, text, "", "the other lines");
        }
        let hinted = routes.lines.iter().filter_map(|line| Some((line, line.hints.first()?)));
        for (line, hint) in hinted.take(SAID) {
            let text = format!(
                "annotation {key}, line {}, column {}: this is how Traefik 2 writes it, and it is understood. Write {} today.",
                line.number, hint.column, hint.now
            );
            self.say_of_line(written, text, &line.rule.to_string(), "the same");
        }
        let without = routes.lines.iter().filter(|line| line.targets.iter().all(|(_, weight)| *weight == 0));
        for line in without.take(SAID) {
            let text = format!(
                "annotation {key}, line {}: all weights are 0, so requests that match its rule are answered 503 \
                 `no_endpoints`. Give a backend a weight above 0.",
                line.number
            );
            self.say_of_line(written, text, &line.rule.to_string(), "no backend");
        }
        for (line, first) in repeated(&routes.lines).take(SAID) {
            let text = format!(
                "annotation {key}, line {}: line {first} has the same rule and takes its requests, so this line takes none. \
                 Remove one of them, or give line {first} both backends with weights.",
                line.number
            );
            self.say_of_line(written, text, &line.rule.to_string(), "the first of them");
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
