//! What is wrong with the annotations of one object, each by itself: unknown names, bad values, ports that are not there.

use std::{collections::BTreeSet, sync::Arc};

use maesh_config::model::Protocol;

use super::{BadValue, Declared, InForce, Scope, declared};
use crate::{
    diagnostic::{Diagnostic, Reason, did_you_mean, shortened},
    kinds::{Annotations, Meta, OLD_PREFIX, PREFIX, Service},
    plan::service::{Plan, Port},
};

/// The path of an annotation in its object.
pub(crate) fn field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

/// What is wrong with the annotations of a Service. `plan` is what the Service came to: it says what is used instead.
pub(crate) fn check_service(service: &Service, plan: &Plan, in_force: InForce<'_>) -> Vec<Diagnostic> {
    let has = |port: &str| {
        let named = |name: &Option<Arc<str>>| name.as_deref() == Some(port);
        service.ports.iter().any(|p| named(&p.name) || p.number.port().is_some_and(|n| n.to_string() == port))
    };
    let using = |it: &dyn Declared, key: &str| in_use(it, key, plan, in_force);
    let object = AnnotatedObject { kind: "Service", meta: &service.meta, annotations: &service.annotations };
    let mut found = object.check(Some(&has), &using);
    found.extend(without_effect(service, plan, in_force));
    found
}

/// Annotations of the Service that are for a protocol which none of the ports that they cover has.
fn without_effect(service: &Service, plan: &Plan, in_force: InForce<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for annotation in super::ALL.iter().filter(|annotation| matches!(annotation.scope(), Scope::Port(_))) {
        let about = annotation.about();
        let mut covered: Vec<(&str, &str, Vec<&Port>)> = Vec::new();
        for port in &plan.ports {
            let Some(written) = in_force.find_of_port(about, port.number, port.name.as_deref()) else { continue };
            if !written.on_service {
                continue;
            }
            match covered.iter_mut().find(|(key, ..)| *key == written.key) {
                Some((.., ports)) => ports.push(port),
                None => covered.push((written.key, written.text, vec![port])),
            }
        }
        for (key, text, ports) in covered {
            if ports.iter().any(|port| about.protocols.contains(&port.protocol)) {
                continue;
            }
            let carries = ports.iter().map(|port| format!("port {} is {}", port.number, port.protocol));
            let why = format!(
                "annotation {key} is for ports that carry {}, but {}; it is ignored. Remove it, or set traffic-type.",
                one_of(about.protocols),
                Vec::from_iter(carries).join(", ")
            );
            let bad = Diagnostic::of(Reason::UnsupportedAnnotation, "Service", &service.meta, &field(key), why);
            found.push(bad.value(text).using("nothing"));
        }
    }
    found
}

/// The protocols as a person says them: `http or tcp`.
pub(super) fn one_of(protocols: &[Protocol]) -> String {
    Vec::from_iter(protocols.iter().map(Protocol::to_string)).join(" or ")
}

/// What is wrong with the annotations of a Namespace.
pub(crate) fn check_namespace(meta: &Meta, annotations: &Annotations) -> Vec<Diagnostic> {
    AnnotatedObject { kind: "Namespace", meta, annotations }.check(None, &|_, _| None)
}

/// What the plan has where the annotation `key` asks for something: the values of all ports that it covers.
fn in_use(annotation: &dyn Declared, key: &str, plan: &Plan, in_force: InForce<'_>) -> Option<String> {
    let value = match annotation.scope() {
        Scope::Service(value) => return Some(value(plan)),
        Scope::Namespace => return None,
        Scope::Port(value) => value,
    };
    let covers = |port: &&Port| {
        let written = in_force.find_of_port(annotation.about(), port.number, port.name.as_deref());
        written.is_some_and(|written| written.on_service && written.key == key)
    };
    let values: BTreeSet<_> = plan.ports.iter().filter(covers).map(value).collect();
    (!values.is_empty()).then(|| Vec::from_iter(values).join(", "))
}

/// What is used in place of a bad value of an annotation, by its key as written; `None` if nothing asks for it.
type Using<'a> = &'a dyn Fn(&dyn Declared, &str) -> Option<String>;
/// Whether the Service has a port of this number or name; `None` for a Namespace.
type HasPort<'a> = Option<&'a dyn Fn(&str) -> bool>;

/// An object with annotations.
struct AnnotatedObject<'a> {
    kind: &'a str,
    meta: &'a Meta,
    annotations: &'a Annotations,
}

impl AnnotatedObject<'_> {
    fn check(&self, has_port: HasPort<'_>, using: Using<'_>) -> Vec<Diagnostic> {
        let with_rest = |(key, text)| Some((key, strip_prefix(key)?, text));
        let ours = self.annotations.iter().map(|(key, text)| (&**key, &**text)).filter_map(with_rest);
        ours.filter_map(|(key, rest, text)| self.check_one(key, rest, text, has_port, using)).collect()
    }

    /// Checks the annotation `key`, which is `rest` without its prefix.
    fn check_one(
        &self,
        key: &str,
        rest: &str,
        text: &str,
        has_port: HasPort<'_>,
        using: Using<'_>,
    ) -> Option<Diagnostic> {
        let (port, name) = rest.rsplit_once('.').map_or((None, rest), |(port, name)| (Some(port), name));
        let say = |reason, text: String| Diagnostic::of(reason, self.kind, self.meta, &field(key), text);
        let ignored = |reason, why: String| Some(say(reason, why).value(text).using("nothing"));
        let Some(annotation) = declared(name) else {
            return ignored(Reason::UnknownAnnotation, unknown(key, rest, name));
        };
        if has_port.is_none() && !annotation.about().on_namespace {
            let why = format!("annotation {key} has no effect on a Namespace; it is ignored. Set it on Services.");
            return ignored(Reason::UnknownAnnotation, why);
        }
        if has_port.is_some() && matches!(annotation.scope(), Scope::Namespace) {
            let why = format!(
                "annotation {key} has an effect on a Namespace alone; it is ignored. Set it on the pods' Namespace."
            );
            return ignored(Reason::UnknownAnnotation, why);
        }
        if let (Some(_), Scope::Namespace) = (port, annotation.scope()) {
            let why = format!(
                "annotation {key} is for one port, but {name} is for all pods; it is ignored. Write {PREFIX}{name}."
            );
            return ignored(Reason::UnknownAnnotation, why);
        }
        if let (Some(_), Scope::Service(_)) = (port, annotation.scope()) {
            let why = format!(
                "annotation {key} is for one port, but {name} is for the whole Service: its name has one answer; it is \
                 ignored. Write {PREFIX}{name}."
            );
            return ignored(Reason::UnknownAnnotation, why);
        }
        if let (Some(port), Some(has)) = (port, has_port)
            && !has(port)
        {
            let why = format!(
                "annotation {key} is for port {port:?}, which the Service does not have; it is ignored. Use the number \
                 or name of one of its ports, or leave {port}. out for all ports."
            );
            return ignored(Reason::UnknownAnnotation, why);
        }
        if key.starts_with(OLD_PREFIX) && self.has(&format!("{PREFIX}{rest}")) {
            return None;
        }
        match annotation.check_value(text.trim()) {
            Ok(None) => None,
            Ok(Some(unsupported)) => {
                Some(say(Reason::UnsupportedAnnotation, format!("annotation {key} {unsupported}")).value(text))
            }
            Err(BadValue { expected, detail }) => {
                let default = using(annotation, key).unwrap_or_else(|| annotation.about().default.into());
                let shown = shortened(text);
                let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
                let why = format!(
                    "annotation {key} is {shown:?}, not {expected}{detail}; using {default}. Set it to {expected}."
                );
                Some(say(Reason::InvalidAnnotation, why).value(text).using(default))
            }
        }
    }

    fn has(&self, key: &str) -> bool {
        self.annotations.binary_search_by(|(other, _)| (**other).cmp(key)).is_ok()
    }
}

fn strip_prefix(key: &str) -> Option<&str> {
    key.strip_prefix(PREFIX).or_else(|| key.strip_prefix(OLD_PREFIX))
}

fn unknown(key: &str, rest: &str, name: &str) -> String {
    let names = super::all().map(|about| about.name);
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
