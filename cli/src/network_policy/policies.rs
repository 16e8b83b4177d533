//! The policies that let only proxies in, as YAML.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use maesh_compiler::diagnostic::did_you_mean;
use serde_json::Value;

use super::carried::said;
use crate::check::{name, text};

/// Reasons that are named in one message at most.
const MOST: usize = 5;

/// Labels that pods must have.
type Selector<'a> = BTreeMap<&'a str, &'a str>;

/// A Service, and why it gets no policy.
struct Candidate<'a> {
    service: &'a Value,
    namespace: &'a str,
    selector: Selector<'a>,
    /// Its callers do not come through proxies.
    around: Option<&'a str>,
    /// It gets no policy.
    reason: Option<String>,
}

/// What is printed.
#[derive(Debug, Default)]
pub struct Printed {
    /// The policies.
    pub text: String,
    /// What was asked for and is not there, and why.
    pub missing: Vec<String>,
}

/// Which Services are asked for.
pub struct Asked<'a> {
    /// Those of this namespace.
    pub namespace: Option<&'a str>,
    /// Those of these names; all of them if empty.
    pub names: &'a [String],
}

impl Asked<'_> {
    fn has(&self, service: &Value) -> bool {
        self.names.is_empty() || self.names.iter().any(|asked| asked == name(service))
    }
}

/// A policy for the pods of each of `services` that is asked for and whose callers come through proxies. `around` says of each
/// why they do not.
pub fn policies(services: &[Value], around: &[Option<String>], mesh: &str, asked: &Asked<'_>) -> Printed {
    let all: Vec<Candidate<'_>> =
        services.iter().zip(around).map(|(service, around)| Candidate::of(service, around.as_deref())).collect();
    // Services that select the same pods need one policy.
    let mut by_pods: BTreeMap<(&str, &Selector<'_>), Vec<&str>> = BTreeMap::new();
    let mut left_out = Vec::new();
    for candidate in all.iter().filter(|candidate| asked.has(candidate.service)) {
        match &candidate.reason {
            None => {
                by_pods.entry((candidate.namespace, &candidate.selector)).or_default().push(name(candidate.service));
            }
            // The mesh's own may be thousands, one for each own address.
            Some(_) if candidate.namespace == mesh && asked.names.is_empty() => {}
            Some(reason) => left_out.push(reason.as_str()),
        }
    }
    let missing = missing(&all, asked);
    if by_pods.is_empty() {
        let missing = if missing.is_empty() { vec![nothing(&left_out, asked)] } else { missing };
        return Printed { text: String::new(), missing };
    }
    let mut text: String = left_out.iter().map(|reason| comment(&format!("Left out: {reason}."))).collect();
    for ((namespace, selector), names) in by_pods {
        text += &policy(namespace, selector, &names, mesh, &all);
    }
    Printed { text, missing }
}

impl<'a> Candidate<'a> {
    fn of(service: &'a Value, around: Option<&'a str>) -> Self {
        let labels = service.pointer("/spec/selector").and_then(Value::as_object);
        let selector: Selector<'_> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
            .collect();
        let without_pods = || {
            selector.is_empty().then(|| format!("{} has no selector, so no policy can select its pods", said(service)))
        };
        let reason = around.map(str::to_owned).or_else(without_pods);
        Self { service, namespace: text(service, "/metadata/namespace"), selector, around, reason }
    }

    /// How its pods relate to those of `selector`, whose Service is `carried`, where some are the same and its callers reach
    /// them directly.
    fn shares(&self, namespace: &str, selector: &Selector<'_>, carried: &str) -> Option<String> {
        let is_within =
            |inner: &Selector<'_>, outer: &Selector<'_>| outer.iter().all(|(key, value)| inner.get(key) == Some(value));
        // The selector of an alias selects nothing.
        let selects = !self.selector.is_empty() && text(self.service, "/spec/type") != "ExternalName";
        if self.around.is_none() || !selects || self.namespace != namespace {
            return None;
        }
        match (is_within(&self.selector, selector), is_within(selector, &self.selector)) {
            (true, true) => Some(format!("selects the same pods as {carried}")),
            (true, false) => Some(format!("selects some of the pods of {carried}")),
            (false, true) => Some(format!("selects the pods of {carried}, and others")),
            (false, false) => None,
        }
    }
}

/// One policy, with what has to be known before it is applied.
fn policy(namespace: &str, selector: &Selector<'_>, names: &[&str], mesh: &str, all: &[Candidate<'_>]) -> String {
    let first = names.first().copied().unwrap_or_default();
    let carried = format!("Service {namespace}/{first}");
    let mut out = comment(&format!(
        "Only the proxies of the mesh may connect to the pods of Service {}. What other policies that select these pods",
        names.join(" and ")
    ));
    out += &comment("admit stays admitted; add what else has to reach them, such as monitoring.");
    for other in all {
        let shares = other.shares(namespace, selector, &carried);
        let Some((shares, around)) = shares.zip(other.around) else { continue };
        let who = said(other.service);
        out += &comment(&format!("CAUTION: {who} {shares}. Callers of {who} connect to these pods directly,"));
        out += &comment(
            "and this policy refuses them. Admit these callers here as well, or have the mesh carry both Services.",
        );
        out += &comment(&format!("They connect directly because: {around}."));
    }
    let labels = Value::from_iter(selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: maesh-only-{first}, namespace: {namespace}}}\n\
         spec:\n  podSelector:\n    matchLabels: {labels}\n  policyTypes: [Ingress]\n  ingress:\n    - from:\n        \
         - namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {mesh}}}}}\n          \
         podSelector: {{matchLabels: {{app.kubernetes.io/name: maesh, app.kubernetes.io/component: proxy}}}}\n---\n"
    );
    out
}

/// A line that YAML skips, whatever is in it.
pub fn comment(text: &str) -> String {
    format!("# {}\n", text.replace(char::is_control, " "))
}

/// Of each name that was asked for and got no policy, why.
fn missing(all: &[Candidate<'_>], asked: &Asked<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    for wanted in asked.names.iter().collect::<BTreeSet<_>>() {
        let mut named = all.iter().filter(|candidate| name(candidate.service) == wanted).peekable();
        if named.peek().is_none() {
            missing.push(not_found(wanted, all, asked.namespace));
        } else if named.clone().all(|candidate| candidate.reason.is_some()) {
            missing.extend(named.filter_map(|candidate| Some(format!("no policy: {}", candidate.reason.as_deref()?))));
        }
    }
    missing
}

fn not_found(wanted: &str, all: &[Candidate<'_>], namespace: Option<&str>) -> String {
    let (place, list) = match namespace {
        Some(namespace) => (format!(" in namespace {namespace}"), format!("kubectl -n {namespace} get services")),
        None => (String::new(), "kubectl get services -A".to_owned()),
    };
    match did_you_mean(wanted, all.iter().map(|candidate| name(candidate.service))) {
        Some(meant) => format!("no Service {wanted} exists{place}; did you mean {meant}?"),
        None => format!("no Service {wanted} exists{place}; see {list}"),
    }
}

/// Why there is no policy at all.
fn nothing(left_out: &[&str], asked: &Asked<'_>) -> String {
    let place = asked.namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
    let mut text = format!("no Service{place} is carried by the mesh, so there is no policy to print");
    for reason in left_out.iter().take(MOST) {
        text += &format!("; {reason}");
    }
    match left_out.len().saturating_sub(MOST) {
        0 if left_out.is_empty() => text + "; see kubectl get services -A",
        0 => text,
        more => text + &format!("; and {more} more"),
    }
}

#[cfg(test)]
mod tests;
