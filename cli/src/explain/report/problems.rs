//! What is wrong with the way of a request, with the next step.

use std::collections::BTreeSet;

use maesh_compiler::compile::explain::{EndpointSeen, Finding, Meshed};
use maesh_dns::{Explanation as DnsExplanation, Rule};
use maesh_proxy::explain as proxy;

use super::{
    Problem, Severity,
    because::{PLAIN, because, plain},
};
use crate::explain::{
    collect::{Collected, Part},
    failures::Failures,
};

/// Endpoints of a backend that are named because of TLS.
const MOST_TLS_FAILURES: usize = 5;

fn problem(severity: Severity, message: impl Into<String>) -> Problem {
    Problem { severity, message: message.into() }
}

/// Every problem of what was collected, in the order in which it was found.
pub(super) fn problems(collected: &Collected) -> Vec<Problem> {
    let mut found = Vec::new();
    match &collected.controller.said {
        Ok(known) => {
            found.extend(known.not_meshed.iter().map(|why| problem(Severity::Error, why.clone())));
            found.extend(known.caller_unknown.iter().map(|why| problem(Severity::Error, why.clone())));
            let serving = collected.serving().unwrap_or(known);
            found.extend(known.findings.iter().chain(&serving.findings).map(finding));
            match &serving.meshed {
                Some(meshed) if lacks(meshed, collected.port) => {
                    let has = meshed.ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", ");
                    let port = collected.port.unwrap_or_default();
                    let has = if has.is_empty() { "none".to_owned() } else { has };
                    found
                        .push(problem(Severity::Error, format!("the Service has no meshed port {port}; it has {has}")));
                    // Whatever else is said of that port would only say so again.
                    found.extend(of_dns(collected));
                    return found;
                }
                // Endpoints are looked for by port: that there are none says nothing.
                Some(meshed) if meshed.ports.is_empty() => found.push(problem(
                    Severity::Warning,
                    "the Service has no port that the mesh can carry: it has none, or those it has are left out as said here",
                )),
                // Its own endpoints do not matter to a request that goes to others.
                Some(_) if goes_elsewhere(collected) => {}
                Some(_) => found.extend(of_endpoints(&serving.endpoints, collected)),
                None => {}
            }
        }
        Err(why) => found.push(problem(Severity::Warning, format!("the controller could not be asked: {why}"))),
    }
    found.extend(of_dns(collected));
    found.extend(collected.proxy.as_ref().map(of_proxy).unwrap_or_default());
    if let (Some(proxy), Some(failures)) = (&collected.proxy, &collected.failures) {
        found.extend(counted(&proxy.by, failures));
    }
    found
}

fn lacks(meshed: &Meshed, port: Option<u16>) -> bool {
    port.is_some_and(|port| meshed.ports.iter().all(|have| have.port != port))
}

/// Whether a route to other backends takes what is sent, on every port asked about.
fn goes_elsewhere(collected: &Collected) -> bool {
    let ports = collected.proxy.as_ref().and_then(Part::get).map(|said| &said.ports[..]).unwrap_or_default();
    let elsewhere = |port: &proxy::PortSeen| {
        let service = collected.serving().and_then(|known| known.service.as_ref());
        let taken = port.taken.and_then(|number| port.routes.get(number));
        taken.is_some_and(|route| route.backends.iter().all(|backend| backend.service.as_ref() != service))
    };
    !ports.is_empty() && ports.iter().all(elsewhere)
}

fn finding(finding: &Finding) -> Problem {
    let place = finding.place.as_ref().map_or_else(String::new, |place| format!("{place}: "));
    // An object that cannot be used at all is its own error, not this caller's.
    problem(Severity::Warning, format!("{place}{}", finding.message))
}

/// The fallback that takes the requests of a Service without usable endpoints, on every port asked about.
fn fallback(collected: &Collected) -> Option<&str> {
    let service = collected.serving()?.service.as_ref();
    let ports = &collected.proxy.as_ref().and_then(Part::get)?.ports;
    let mut usable = ports.iter().map(|port| {
        let mut backends = port.routes.iter().flat_map(|route| &route.backends);
        let own = backends.find(|backend| backend.service.as_ref() == service)?;
        own.fallback.as_ref().filter(|fallback| fallback.usable > 0)
    });
    let first = usable.next()??;
    usable.all(|fallback| fallback.is_some()).then_some(&*first.service)
}

fn of_endpoints(endpoints: &[EndpointSeen], collected: &Collected) -> Vec<Problem> {
    let fallback = fallback(collected);
    let instead = fallback.map_or_else(String::new, |to| format!(", so its requests go to the fallback {to}"));
    let worst = if fallback.is_some() { Severity::Warning } else { Severity::Error };
    let asked = |endpoint: &&EndpointSeen| collected.port.is_none_or(|port| endpoint.port == port);
    let mut asked = endpoints.iter().filter(asked).peekable();
    if asked.peek().is_none() {
        let next = if collected.dev {
            "add an EndpointSlice with the label kubernetes.io/service-name, or Pods that its selector selects"
        } else {
            "see whether its selector selects pods, and its targetPort is one of theirs: kubectl get endpointslices"
        };
        return vec![problem(worst, format!("the Service has no endpoint{instead}; {next}"))];
    }
    let (ready, rest): (Vec<_>, Vec<_>) = asked.partition(|endpoint| endpoint.ready);
    if !ready.is_empty() {
        return Vec::new();
    }
    let is_served = rest.iter().any(|endpoint| endpoint.serving);
    let severity = if is_served { Severity::Warning } else { worst };
    let instead = if is_served { "" } else { &instead };
    let which = match rest.len() {
        1 => "its only endpoint is not ready".to_owned(),
        count => format!("none of its {count} endpoints is ready"),
    };
    let message =
        format!("{which}{instead}; see why with kubectl describe pod, or in the conditions of its EndpointSlice");
    vec![problem(severity, message)]
}

fn of_dns(collected: &Collected) -> Vec<Problem> {
    let mut found = Vec::new();
    for part in &collected.dns {
        match &part.said {
            Err(why) => {
                found.push(problem(Severity::Warning, format!("{} could not be asked: {why}", named("dns", &part.by))));
            }
            Ok(said) if !said.synced => found.push(problem(
                Severity::Error,
                format!("dns {} has not received everything yet and answers SERVFAIL; see its logs", part.by),
            )),
            Ok(_) => {}
        }
    }
    let said: Vec<_> = collected.dns.iter().filter_map(Part::get).collect();
    if said.is_empty() {
        found.push(problem(Severity::Error, "no dns could be asked, so what callers are answered is not known"));
    }
    let answers: BTreeSet<_> =
        said.iter().map(|said| (&said.code, said.addresses.iter().collect::<BTreeSet<_>>())).collect();
    if answers.len() > 1 {
        found.push(problem(
            Severity::Warning,
            "the dns replicas answer differently; one may be behind: compare their /api/status",
        ));
    }
    let Some(first) = said.first() else { return found };
    let known = collected.controller.get();
    let meshed = known.and_then(|known| known.meshed.as_ref());
    match first.rule {
        None if first.synced && meshed.is_some() => found.push(problem(Severity::Error, unanswered(first, meshed))),
        None if first.synced && known.is_none() => {
            let caller = known.and_then(|known| known.caller.as_ref());
            found.push(problem(Severity::Error, format!("{}: {}", first.code, because(first, caller, None))));
        }
        Some(Rule::LastKnown) => found.push(problem(
            Severity::Error,
            "the proxies that are answered do not listen on every port of the name; see them below",
        )),
        Some(Rule::Withheld) => {
            found.push(problem(Severity::Error, because(first, None, meshed)));
            found.extend(known.into_iter().flat_map(|known| &known.proxies).flat_map(lacking));
        }
        Some(Rule::Plain | Rule::FailToPlain) if first.addresses.is_empty() => {
            let why = plain(first, meshed);
            let why = why.trim_start_matches(PLAIN);
            found.push(problem(
                Severity::Error,
                format!(
                    "the name has no address, so nobody can connect: {why}, and the Service has no ClusterIP and no ready \
                     endpoint"
                ),
            ));
        }
        Some(Rule::FailToPlain) => {
            found.push(problem(
                Severity::Warning,
                "requests go around the mesh, because proxies are missing; see kubectl get pods -A \
                 -l app.kubernetes.io/name=maesh,app.kubernetes.io/component=proxy",
            ));
            found.extend(known.into_iter().flat_map(|known| &known.proxies).flat_map(lacking));
        }
        Some(Rule::Plain) if meshed.is_some_and(|meshed| meshed.own && !meshed.bypass && !meshed.bypass_all) => {
            found.push(problem(Severity::Warning, format!("requests go around the mesh: {}", plain(first, meshed))));
            found.extend(known.into_iter().flat_map(|known| &known.proxies).flat_map(lacking));
        }
        Some(Rule::Plain) => found.push(problem(Severity::Note, "requests go around the mesh")),
        Some(Rule::Spread) if first.known_proxies > 1 && collected.caller.is_some() => {
            found.extend(first.proxies.iter().filter(|proxy| proxy.local).map(|proxy| {
                problem(Severity::Warning, format!("proxy {} of the caller's node is not used; see its logs", proxy.id))
            }));
        }
        _ => {}
    }
    found
}

/// One of a role: where none runs, it has no name but that of the role.
fn named(role: &str, by: &str) -> String {
    if by == role { role.to_owned() } else { format!("{role} {by}") }
}

/// A Service of the mesh, and no answer for it.
fn unanswered(said: &DnsExplanation, meshed: Option<&Meshed>) -> String {
    if meshed.is_some_and(|meshed| meshed.headless && meshed.plain.is_empty()) {
        return format!("{}: the Service is headless and has no ready endpoint, so its name does not exist", said.code);
    }
    format!(
        "dns answers {} although the controller has the Service; its stream may be behind: see its /api/status and logs",
        said.code
    )
}

fn lacking(proxy: &maesh_compiler::compile::explain::ProxySeen) -> Vec<Problem> {
    let failed = proxy
        .failed
        .iter()
        .map(|(id, why)| problem(Severity::Warning, format!("proxy {}: listener {id}: {why}", proxy.id)));
    let mut found: Vec<_> = failed.collect();
    if found.is_empty() && !proxy.lacks.is_empty() {
        let message = format!("proxy {} has not opened {} yet", proxy.id, proxy.lacks.join(", "));
        found.push(problem(Severity::Warning, message));
    }
    found
}

/// What the proxy counted. A few of many are a note: they may be long ago.
fn counted(by: &str, failures: &Failures) -> Option<Problem> {
    let failed = failures.failed();
    let severity = if failed * 2 >= failures.requests { Severity::Warning } else { Severity::Note };
    (failed > 0).then(|| {
        let (of, reasons) = (failures.requests, failures.reasons());
        problem(
            severity,
            format!(
                "{by} answered {failed} of the {of} requests to this Service by itself since it started ({reasons}); \
                 docs/reference/reasons.md says what each reason means and what to do"
            ),
        )
    })
}

fn of_proxy(part: &Part<proxy::Explanation>) -> Vec<Problem> {
    let said = match &part.said {
        Ok(said) => said,
        Err(why) => {
            return vec![problem(Severity::Warning, format!("{} could not be asked: {why}", named("proxy", &part.by)))];
        }
    };
    let mut found = Vec::new();
    if !said.ready {
        found.push(problem(Severity::Warning, format!("proxy {} is not ready, or is leaving; see its logs", part.by)));
    }
    let refuses = |port: Option<u16>, refusal: &proxy::Refusal| {
        let port = port.map_or_else(String::new, |port| format!(" on port {port}"));
        let message = format!(
            "the proxy answers {}{port} with reason {}: {}",
            refusal.status, refusal.reason, refusal.explanation
        );
        problem(Severity::Error, message)
    };
    found.extend(said.refusal.iter().map(|refusal| refuses(None, refusal)));
    for port in &said.ports {
        found.extend(port.refusal.iter().map(|refusal| refuses(Some(port.port), refusal)));
        if port.listener.is_none() {
            let message = format!(
                "the proxy has no listener open for port {} ({} {}); see the listeners that failed in the \
                 controller's /api/subscribers",
                port.port, port.protocol, port.listen
            );
            found.push(problem(Severity::Error, message));
        }
        found.extend(port.routes.iter().flat_map(|route| &route.backends).flat_map(tls_failures));
        if port.held == proxy::ServiceState::Awaited {
            found.push(problem(
                Severity::Warning,
                "the proxy has asked for this Service and has not received it; requests go to its ClusterIP",
            ));
        }
    }
    found
}

/// Endpoints of a backend that could not be verified.
fn tls_failures(backend: &proxy::BackendSeen) -> Vec<Problem> {
    let failed = backend.endpoints.iter().filter_map(|endpoint| Some((endpoint, endpoint.tls_failure.as_ref()?)));
    let failed: Vec<_> = failed.collect();
    let severity = if failed.len() == backend.usable { Severity::Error } else { Severity::Warning };
    let service = backend.service.as_deref().unwrap_or_default();
    let say = |(endpoint, why): &(&proxy::EndpointSeen, &String)| {
        problem(
            severity,
            format!("endpoint {} of {service} is answered for with 502 connect_failed: {why}", endpoint.address),
        )
    };
    failed.iter().take(MOST_TLS_FAILURES).map(say).collect()
}
