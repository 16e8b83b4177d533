//! The mesh's annotations: which there are, how they are narrowed to one port, which one wins.
//!
//! A value that cannot be used never drops anything: the annotation's default is used, and [`check`] says so, once,
//! on the object that carries it.

#[cfg(test)]
mod page;

use std::sync::Arc;

use maesh_config::model::{Protocol, Scheme};

use crate::{
    diagnostic::{Diagnostic, Reason, did_you_mean},
    kinds::{Annotations, Meta, OLD_PREFIX, PREFIX, Service},
};

/// One annotation that exists.
struct Known {
    name: &'static str,
    /// It may stand on a Namespace, as the default of its Services.
    on_namespace: bool,
    /// It may be narrowed to one port. What decides on the answer of a name cannot: names have no ports.
    of_port: bool,
    /// What its values may be, for people.
    values: &'static str,
    /// What is used in place of a bad value.
    default: &'static str,
    /// Whether a value is good; `None` for an annotation that this version ignores.
    good: Option<fn(&str) -> bool>,
}

const fn later(name: &'static str, on_namespace: bool) -> Known {
    Known { name, on_namespace, of_port: true, values: "", default: "", good: None }
}

/// Every annotation, sorted by name.
const KNOWN: [Known; 29] = [
    Known {
        name: "address",
        on_namespace: true,
        of_port: false,
        values: "shared or own",
        default: "shared where all ports are HTTP, else own",
        good: Some(|text| own(text).is_some()),
    },
    Known {
        name: "addressing",
        on_namespace: true,
        of_port: false,
        values: "node or service",
        default: "the mesh's mode",
        good: Some(|text| one_address(text).is_some()),
    },
    later("balance", true),
    Known {
        name: "bypass",
        on_namespace: false,
        of_port: false,
        values: "true or false",
        default: "false",
        good: Some(|text| flag(text).is_some()),
    },
    later("circuit-breaker-expression", false),
    later("concurrency", false),
    later("eject", true),
    later("eject-max", true),
    later("fallback", false),
    later("fault-abort", false),
    later("fault-delay", false),
    later("fault-until", false),
    later("hedge-after", false),
    later("mirror", false),
    later("ratelimit-average", false),
    later("ratelimit-burst", false),
    later("ratelimit-by", false),
    later("retry-attempts", true),
    later("retry-budget", true),
    later("retry-on", true),
    later("routes", false),
    Known {
        name: "scheme",
        on_namespace: false,
        of_port: true,
        values: "http, https or h2c",
        default: "http, or h2c where appProtocol says so",
        good: Some(|text| scheme(text).is_some()),
    },
    later("timeout-connect", true),
    later("timeout-idle", true),
    later("timeout-request", true),
    later("timeout-try", true),
    later("tls-ca", false),
    later("tls-server-name", false),
    Known {
        name: "traffic-type",
        on_namespace: true,
        of_port: true,
        values: "http, tcp or udp",
        default: "what appProtocol or the mesh's default says",
        good: Some(|text| protocol(text).is_some()),
    },
];

fn known(name: &str) -> Option<&'static Known> {
    let at = KNOWN.binary_search_by_key(&name, |known| known.name).ok()?;
    Some(&KNOWN[at])
}

/// A value of `traffic-type`.
pub(super) fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "http" => Some(Protocol::Http),
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// A value of `scheme`.
pub(super) fn scheme(text: &str) -> Option<Scheme> {
    match text {
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        "h2c" => Some(Scheme::H2c),
        _ => None,
    }
}

/// A boolean.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A value of `address`: whether it is `own`.
pub(super) fn own(text: &str) -> Option<bool> {
    match text {
        "own" => Some(true),
        "shared" => Some(false),
        _ => None,
    }
}

/// A value of `addressing`: whether one address answers everybody.
pub(super) fn one_address(text: &str) -> Option<bool> {
    match text {
        "service" => Some(true),
        "node" => Some(false),
        _ => None,
    }
}

/// An annotation that applies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// Its key, as written.
    pub(super) key: &'a str,
    /// Its value, as written.
    pub(super) text: &'a str,
    /// It names this one port.
    pub(super) narrowed: bool,
    /// It stands on the Service, not on its Namespace.
    pub(super) on_service: bool,
}

/// The annotations in force for one Service: its own and its Namespace's.
#[derive(Clone, Copy, Debug)]
pub(super) struct InForce<'a> {
    pub(super) service: &'a Annotations,
    pub(super) namespace: &'a Annotations,
}

impl<'a> InForce<'a> {
    /// The annotation `name` for the Service as a whole.
    pub(super) fn get(self, name: &str) -> Option<Found<'a>> {
        self.find(name, &[])
    }

    /// The annotation `name` for the port with this number and name: narrowed before general, the number before the
    /// name, our prefix before the old one, the Service before its Namespace.
    pub(super) fn of_port(self, name: &str, number: u16, port: Option<&str>) -> Option<Found<'a>> {
        let number = number.to_string();
        match port {
            Some(port) => self.find(name, &[&number, port]),
            None => self.find(name, &[&number]),
        }
    }

    fn find(self, name: &str, ports: &[&str]) -> Option<Found<'a>> {
        let known = known(name)?;
        find(self.service, name, ports, true)
            .or_else(|| find(self.namespace, name, ports, false).filter(|_| known.on_namespace))
    }
}

fn find<'a>(annotations: &'a Annotations, name: &str, ports: &[&str], on_service: bool) -> Option<Found<'a>> {
    // Most Services have no annotation of ours at all.
    if annotations.is_empty() {
        return None;
    }
    let get = |key: String, narrowed| {
        let at = annotations.binary_search_by(|(other, _)| (**other).cmp(key.as_str())).ok()?;
        let (key, text) = &annotations[at];
        Some(Found { key, text: text.trim(), narrowed, on_service })
    };
    let narrowed = ports.iter().map(|port| (format!("{port}.{name}"), true));
    for (name, narrowed) in narrowed.chain([(name.to_owned(), false)]) {
        for prefix in [PREFIX, OLD_PREFIX] {
            if let Some(found) = get(format!("{prefix}{name}"), narrowed) {
                return Some(found);
            }
        }
    }
    None
}

/// The path of an annotation in its object.
pub(super) fn field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

/// What is used in place of a bad value, by the annotation's name and its key as written; `None` if nothing asks for it.
type Using<'a> = &'a dyn Fn(&str, &str) -> Option<String>;

/// What is wrong with the annotations of a Service by themselves: unknown names, bad values, ports that it lacks.
pub(super) fn check_service(service: &Service, using: Using<'_>) -> Vec<Diagnostic> {
    let has = |port: &str| {
        let named = |name: &Option<Arc<str>>| name.as_deref() == Some(port);
        service.ports.iter().any(|p| named(&p.name) || p.number.port().is_some_and(|n| n.to_string() == port))
    };
    check("Service", &service.meta, &service.annotations, Some(&has), using)
}

/// What is wrong with the annotations of a Namespace.
pub(super) fn check_namespace(meta: &Meta, annotations: &Annotations) -> Vec<Diagnostic> {
    check("Namespace", meta, annotations, None, &|_, _| None)
}

fn check(
    kind: &str,
    meta: &Meta,
    annotations: &Annotations,
    has_port: Option<&dyn Fn(&str) -> bool>,
    using: Using<'_>,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(rest) = key.strip_prefix(PREFIX).or_else(|| key.strip_prefix(OLD_PREFIX)) else { continue };
        let (port, name) = rest.rsplit_once('.').map_or((None, rest), |(port, name)| (Some(port), name));
        let say = |reason, text: String| Diagnostic::of(reason, kind, meta, &field(key), text);
        let Some(known) = known(name) else {
            found.push(say(Reason::UnknownAnnotation, unknown(key, rest, name)).value(text).using("nothing"));
            continue;
        };
        if has_port.is_none() && !known.on_namespace {
            let text_ = format!("annotation {key} has no effect on a Namespace; it is ignored. Set it on Services.");
            found.push(say(Reason::UnknownAnnotation, text_).value(text).using("nothing"));
            continue;
        }
        if port.is_some() && !known.of_port {
            let text_ = format!(
                "annotation {key} is for one port, but {name} is for the whole Service: its name has one answer; it is \
                 ignored. Write {PREFIX}{name}."
            );
            found.push(say(Reason::UnknownAnnotation, text_).value(text).using("nothing"));
            continue;
        }
        if let (Some(port), Some(has)) = (port, has_port)
            && !has(port)
        {
            let text_ = format!(
                "annotation {key} is for port {port:?}, which the Service does not have; it is ignored. Use the number \
                 or name of one of its ports, or leave {port}. out for all ports."
            );
            found.push(say(Reason::UnknownAnnotation, text_).value(text).using("nothing"));
            continue;
        }
        let shadowed = key.starts_with(OLD_PREFIX)
            && annotations.binary_search_by(|(other, _)| (**other).cmp(format!("{PREFIX}{rest}").as_str())).is_ok();
        if shadowed {
            continue;
        }
        let Some(good) = known.good else {
            let text_ = format!(
                "annotation {key} is not supported by this version of the mesh; it is ignored. Remove it, or update the mesh."
            );
            found.push(say(Reason::UnsupportedAnnotation, text_).value(text).using("nothing"));
            continue;
        };
        if !good(text.trim()) {
            let values = known.values;
            let default = using(name, key).unwrap_or_else(|| known.default.into());
            let shown = crate::diagnostic::shortened(text);
            let text_ = format!("annotation {key} is {shown:?}, not {values}; using {default}. Set it to {values}.");
            found.push(say(Reason::InvalidAnnotation, text_).value(text).using(default));
        } else if name == "scheme" && scheme(text.trim()) == Some(Scheme::Https) {
            let text_ = format!(
                "annotation {key} is \"https\", but this version of the mesh speaks no TLS to endpoints: requests over HTTP are \
                 answered 502. Set it to http or h2c; or, for callers that speak TLS themselves, set traffic-type to tcp."
            );
            found.push(say(Reason::UnsupportedAnnotation, text_).value(text));
        }
    }
    found
}

fn unknown(key: &str, rest: &str, name: &str) -> String {
    let names = KNOWN.iter().map(|known| known.name);
    match did_you_mean(name, names) {
        Some(meant) => {
            let meant = format!("{}{meant}", &rest[..rest.len() - name.len()]);
            format!("annotation {key} does not exist; it is ignored. Did you mean {PREFIX}{meant}?")
        }
        None => {
            format!("annotation {key} does not exist; it is ignored. Remove it, or see docs/reference/annotations.md.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(KNOWN.is_sorted_by_key(|known| known.name));
    }

    #[test]
    fn narrowed_before_general_and_our_prefix_first() {
        let pairs = |pairs: &[(&str, &str)]| -> Annotations {
            let mut pairs: Vec<_> = pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect();
            pairs.sort();
            pairs.into()
        };
        let (ours, old, narrow) = (
            ("maesh.containo.us/traffic-type", "a"),
            ("mesh.traefik.io/traffic-type", "b"),
            ("mesh.traefik.io/80.traffic-type", "c"),
        );
        let named = ("maesh.containo.us/web.traffic-type", "d");
        for (case, service, namespace, want) in [
            ("nothing", &[][..], &[][..], None),
            ("our prefix wins", &[ours, old], &[], Some("a")),
            ("the old one alone", &[old], &[], Some("b")),
            ("narrowed wins over prefix", &[ours, narrow], &[], Some("c")),
            ("number wins over name", &[named, narrow], &[], Some("c")),
            ("name", &[named, ours], &[], Some("d")),
            ("namespace is the default", &[], &[old], Some("b")),
            ("service wins over namespace", &[ours], &[narrow], Some("a")),
        ] {
            let (service, namespace) = (pairs(service), pairs(namespace));
            let in_force = InForce { service: &service, namespace: &namespace };
            let found = in_force.of_port("traffic-type", 80, Some("web"));
            assert_eq!(found.map(|found| found.text), want, "{case}");
        }
    }
}
