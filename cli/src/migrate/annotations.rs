//! Annotations of Traefik Mesh: what each did there, and what does the same here.
//!
//! Traefik Mesh read `mesh.traefik.io/NAME`, and `maesh.containo.us/NAME` where that was absent; this mesh has them the other way
//! round. It reads both, so a value whose meaning differs has to be named even where nothing is printed.

use std::collections::BTreeMap;

use maesh_compiler::{
    diagnostic::{ObjectRef, did_you_mean, shortened},
    kinds::{Annotations, Meta, OLD_PREFIX, PREFIX, Service, Transport},
    plan::annotations,
};
use maesh_config::{
    model::Protocol,
    policy::{MOST_ATTEMPTS, breaker::Expression},
};

use super::outcome::{Finding, Verdict};

/// The annotations that Traefik Mesh read.
pub const NAMES: [&str; 6] = [TYPE, SCHEME, ATTEMPTS, BREAKER, AVERAGE, BURST];
const TYPE: &str = "traffic-type";
const SCHEME: &str = "scheme";
const ATTEMPTS: &str = "retry-attempts";
const BREAKER: &str = "circuit-breaker-expression";
const AVERAGE: &str = "ratelimit-average";
const BURST: &str = "ratelimit-burst";
/// Largest rate limit.
const MOST_REQUESTS: i64 = 1_000_000_000;

/// Those that decide about requests to the Service that was called, so that as those of a backend they have no effect here.
pub const OF_CALLED: [&str; 3] = [ATTEMPTS, AVERAGE, BURST];

/// What a value is here.
#[derive(Debug, PartialEq, Eq)]
struct Meant {
    /// The same value in the form of today; `None` where there is none.
    value: Option<String>,
    verdict: Verdict,
    why: String,
    next: Option<String>,
}

impl Meant {
    fn same(value: impl Into<String>) -> Self {
        Self { value: Some(value.into()), verdict: Verdict::Translated, why: String::new(), next: None }
    }

    fn not_needed(why: &str) -> Self {
        Self { value: None, verdict: Verdict::NotNeeded, why: why.to_owned(), next: None }
    }

    fn not_kept(why: impl Into<String>) -> Self {
        Self { value: None, verdict: Verdict::NotKept, why: why.into(), next: None }
    }

    fn but(self, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotKept, why: why.into(), ..self }
    }

    fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }
}

/// What the annotations of one Service become.
#[derive(Debug, Default)]
pub struct Translated {
    /// Annotations to add.
    pub add: BTreeMap<String, String>,
    pub findings: Vec<Finding>,
}

/// Translates the annotations of a Service.
pub fn of_service(service: &Service, default: Protocol) -> Translated {
    let of = OfService { service, default };
    let mut translated = Translated::default();
    for (key, text) in &service.annotations {
        let (key, text) = (&**key, &**text);
        let found = match key.strip_prefix(OLD_PREFIX) {
            Some(name) => of.old(key, name, text, &mut translated.add),
            None => key.strip_prefix(PREFIX).and_then(|name| of.present(key, name, text)),
        };
        translated.findings.extend(found);
    }
    translated
}

/// Names the annotations of a Namespace that Traefik Mesh did not read.
pub fn of_namespace(meta: &Meta, annotations: &Annotations) -> Vec<Finding> {
    let object = ObjectRef::new("Namespace", "", &meta.name);
    let found = annotations.iter().filter_map(|(key, _)| {
        let old = key.strip_prefix(OLD_PREFIX);
        let name = old.or_else(|| key.strip_prefix(PREFIX))?;
        let is_read = annotations::all().any(|about| about.name == name && about.on_namespace);
        match (is_read, old) {
            (true, Some(_)) => {
                let why = "Traefik Mesh did not read annotations of Namespaces; here it is the default of its Services";
                let next = format!("kubectl annotate namespace {} {key}-", meta.name);
                Some(Finding::new(object.clone(), &**key, Verdict::NotKept, why).next(next))
            }
            (true, None) => None,
            (false, _) => {
                let why = "it had no effect, and has none here";
                Some(Finding::new(object.clone(), &**key, Verdict::NotNeeded, why))
            }
        }
    });
    found.collect()
}

/// One Service.
struct OfService<'a> {
    service: &'a Service,
    default: Protocol,
}

impl OfService<'_> {
    fn say(&self, key: &str, verdict: Verdict, why: impl Into<String>) -> Finding {
        let meta = &self.service.meta;
        Finding::new(ObjectRef::new("Service", &meta.namespace, &meta.name), key, verdict, why)
    }

    fn remove(&self, key: &str) -> String {
        format!("kubectl -n {} annotate service {} {key}-", self.service.meta.namespace, self.service.meta.name)
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.service.annotations.iter().find(|(other, _)| **other == *key);
        found.map(|(_, text)| &**text)
    }

    /// The value that Traefik Mesh took.
    fn taken(&self, name: &str) -> Option<&str> {
        self.get(&format!("{OLD_PREFIX}{name}")).or_else(|| self.get(&format!("{PREFIX}{name}")))
    }

    /// An annotation with the prefix of Traefik Mesh.
    fn old(&self, key: &str, name: &str, text: &str, add: &mut BTreeMap<String, String>) -> Option<Finding> {
        if !NAMES.contains(&name) {
            return Some(self.unknown(key, name));
        }
        let meant = self.meant(name, text);
        let ours = format!("{PREFIX}{name}");
        if let Some(present) = self.get(&ours) {
            if meant.value.is_some_and(|value| value == present.trim()) {
                return Some(self.say(key, Verdict::Kept, format!("{ours} says the same already")));
            }
            let why = format!(
                "Traefik Mesh took its value {:?}; this mesh takes {:?} of {ours}",
                shortened(text),
                shortened(present)
            );
            return Some(self.say(key, Verdict::NotKept, why).next("remove the one of the two that is not meant"));
        }
        let Meant { value, verdict, why, next } = meant;
        let mut found = self.say(key, verdict, why);
        if let Some(value) = value {
            let now = format!("now {ours}: {value:?}");
            found.why = if found.why.is_empty() { now } else { format!("{now}; {}", found.why) };
            add.insert(ours, value);
        }
        found.next = next;
        Some(found)
    }

    /// An annotation with the prefix that Maesh had, and that this mesh has.
    fn present(&self, key: &str, name: &str, text: &str) -> Option<Finding> {
        let is_hidden = self.get(&format!("{OLD_PREFIX}{name}")).is_some();
        if !NAMES.contains(&name) {
            return (!is_known(name)).then(|| self.unknown(key, name));
        }
        if is_hidden {
            return None;
        }
        let meant = self.meant(name, text);
        let found = match &meant.value {
            Some(value) if meant.verdict == Verdict::Translated && value == text.trim() => {
                self.say(key, Verdict::Kept, "it means the same")
            }
            Some(value) if value != text.trim() => {
                let why = format!("{:?} is not read here: {}", shortened(text), self.without(name));
                self.say(key, Verdict::NotKept, why).next(format!("write {value:?}"))
            }
            _ => self.say(key, meant.verdict, meant.why),
        };
        Some(Finding { next: found.next.clone().or(meant.next), ..found })
    }

    /// A name that Traefik Mesh did not know.
    fn unknown(&self, key: &str, name: &str) -> Finding {
        if is_known(name) {
            let why = "Traefik Mesh did not read it, and this mesh does";
            return self.say(key, Verdict::NotKept, why).next(format!("if it is not meant: {}", self.remove(key)));
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        let next = match did_you_mean(last, NAMES) {
            Some(meant) => format!("did you mean {PREFIX}{meant}? If not: {}", self.remove(key)),
            None => format!("remove it: {}", self.remove(key)),
        };
        self.say(key, Verdict::NotNeeded, "neither Traefik Mesh nor this mesh reads it").next(next)
    }

    /// What this mesh does where the annotation is not there, or its value cannot be read.
    fn without(&self, name: &str) -> &'static str {
        let has_average = || self.taken(AVERAGE).is_some_and(is_limit);
        match name {
            ATTEMPTS => "this mesh tries each request once",
            BURST if has_average() => "this mesh takes ratelimit-average for it",
            AVERAGE | BURST => "this mesh uses no limit",
            _ => "this mesh ignores it",
        }
    }

    /// What Traefik Mesh served the Service as.
    fn served_as(&self) -> Protocol {
        match self.taken(TYPE) {
            Some("tcp") => Protocol::Tcp,
            Some("udp") => Protocol::Udp,
            Some(_) => Protocol::Http,
            None => self.default,
        }
    }

    fn meant(&self, name: &str, text: &str) -> Meant {
        if name == TYPE {
            return self.traffic_type(text.trim());
        }
        if self.served_as() != Protocol::Http {
            return Meant::not_needed("it is for HTTP, which the Service did not carry");
        }
        match name {
            SCHEME => self.scheme(text.trim()),
            ATTEMPTS => attempts(text),
            BREAKER => breaker(text.trim()),
            _ => self.rate_limit(name, text),
        }
    }

    fn traffic_type(&self, text: &str) -> Meant {
        let wanted = match text {
            "http" | "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => {
                let why = format!(
                    "Traefik Mesh did not serve a Service of type {:?}; this mesh serves it by its appProtocol and the default",
                    shortened(text)
                );
                return Meant::not_kept(why)
                    .next("correct it to http, tcp or udp, or set maesh.containo.us/bypass: \"true\"");
            }
        };
        let others = self.service.ports.iter().filter(|port| port.transport != wanted);
        let others: Vec<_> = others.map(|port| port.number.to_string()).collect();
        match (others.len(), self.service.ports.len()) {
            (0, _) => Meant::same(text),
            (others, all) if others == all => {
                let why =
                    format!("no port of the Service is {wanted:?}, so Traefik Mesh served none; this mesh serves all");
                Meant::not_kept(why.replace("Tcp", "TCP").replace("Udp", "UDP")).next("remove it, or correct the ports")
            }
            _ => {
                let why = format!(
                    "Traefik Mesh left port {} out, of another transport; this mesh serves it too",
                    others.join(", ")
                );
                Meant { why, ..Meant::same(text) }
            }
        }
    }

    fn scheme(&self, text: &str) -> Meant {
        match text {
            "http" | "h2c" => Meant::same(text),
            "https" if self.get(&format!("{PREFIX}tls-ca")).is_some() => Meant::same(text),
            "https" => {
                let meta = &self.service.meta;
                let why = format!(
                    "Traefik Mesh compared the certificate of an endpoint with its address; this mesh verifies it for \
                     {}.{}.svc and the authorities of Mozilla, and sends nothing to an endpoint that fails",
                    meta.name, meta.namespace
                );
                Meant::same(text).but(why).next(format!("name the authority with {PREFIX}tls-ca (docs/tasks/https.md)"))
            }
            _ => {
                let why = format!(
                    "Traefik Mesh did not serve a Service of scheme {:?}; this mesh speaks HTTP to it",
                    shortened(text)
                );
                Meant::not_kept(why).next("correct it to http, https or h2c")
            }
        }
    }

    /// Average and burst limit together alone.
    fn rate_limit(&self, name: &str, text: &str) -> Meant {
        match (self.taken(AVERAGE), self.taken(BURST)) {
            (Some(_), None) if !is_limit(text) => {
                let why = format!(
                    "{:?} is not a whole number from 1 to {MOST_REQUESTS}: {}; without {BURST} Traefik Mesh did not limit either",
                    shortened(text),
                    self.without(name)
                );
                Meant::not_kept(why).next(format!(
                    "remove it, or correct it to a number from 1 to {MOST_REQUESTS} and add {PREFIX}{BURST}"
                ))
            }
            (Some(_), None) => {
                let why = format!(
                    "without {BURST} Traefik Mesh did not limit; this mesh lets {} requests a second pass",
                    shortened(text)
                );
                Meant::not_kept(why).next(format!("if no limit is meant, remove it; else add {PREFIX}{BURST}"))
            }
            (None, Some(_)) => Meant::not_needed("without ratelimit-average neither limits"),
            _ => match whole_number(text) {
                Some(number @ 1..=MOST_REQUESTS) => Meant::same(number.to_string()),
                _ => {
                    let why = format!(
                        "{name} is {:?}, for which Traefik Mesh refused the Service; {}",
                        shortened(text),
                        self.without(name)
                    );
                    Meant::not_kept(why).next(format!("correct it to a number from 1 to {MOST_REQUESTS}"))
                }
            },
        }
    }
}

fn attempts(text: &str) -> Meant {
    match whole_number(text) {
        Some(number) if (1..=i64::from(MOST_ATTEMPTS)).contains(&number) => Meant::same(number.to_string()),
        Some(number) if number > 0 => Meant::same(MOST_ATTEMPTS.to_string())
            .but(format!("a request is tried {MOST_ATTEMPTS} times at most"))
            .next("add it as it is printed if that is enough"),
        _ => {
            let why = format!("{:?} made Traefik Mesh refuse all requests; this mesh tries each once", shortened(text));
            Meant::not_kept(why).next(format!("correct it to a number from 1 to {MOST_ATTEMPTS}, or remove it"))
        }
    }
}

fn breaker(text: &str) -> Meant {
    match text.parse::<Expression>() {
        Ok(_) => Meant::same(text),
        Err(bad) => Meant::not_kept(format!("it cannot be read ({bad}), so there is no circuit breaker"))
            .next("correct the expression (docs/tasks/circuit-breakers.md)"),
    }
}

/// Whether this mesh reads a limit in it.
fn is_limit(text: &str) -> bool {
    let text = text.trim();
    !text.starts_with('+') && whole_number(text).is_some_and(|number| (1..=MOST_REQUESTS).contains(&number))
}

/// Whether this mesh has an annotation of this name, which may begin with a port.
fn is_known(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name);
    annotations::all().any(|about| about.name == name)
}

/// A number as Go's `Atoi` reads it, which takes a `+`.
fn whole_number(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests;
