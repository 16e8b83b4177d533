//! The annotations of the mesh. Each one is declared once, as a typed constant, and looked up by that constant.
//!
//! A bad value never drops anything: the default is used, and [`check_service`] says so on the object that has it.
//! A new annotation is declared in the file of its policy and listed in [`ALL`].

pub(crate) mod address;
pub(crate) mod balance;
pub(crate) mod breaker;
mod check;
pub(crate) mod fault;
pub(crate) mod foreign;
#[cfg(test)]
mod page;
pub(crate) mod protocol;
pub(crate) mod rate_limit;
pub(crate) mod retry;
pub(crate) mod routes;
pub(crate) mod target;
pub(crate) mod timeout;
pub(crate) mod tls;

use std::fmt;

use maesh_config::model::Protocol;

pub(crate) use self::check::{check_namespace, check_service, field};
use super::service::{Plan, Port};
use crate::kinds::{Annotations, OLD_PREFIX, PREFIX};

/// Every annotation that has an effect, sorted by name.
static ALL: [&dyn Declared; 30] = [
    &address::ADDRESS,
    &address::ADDRESSING,
    &balance::BALANCE,
    &address::BYPASS,
    &breaker::BREAKER,
    &breaker::CONCURRENCY_OF_A_PORT,
    &balance::EJECT,
    &balance::EJECT_MAX,
    &foreign::ENDPOINTS_FOR,
    &target::FALLBACK,
    &fault::FAULT_ABORT,
    &fault::FAULT_DELAY,
    &fault::FAULT_UNTIL,
    &target::HEDGE_AFTER,
    &target::MIRROR_TO,
    &rate_limit::AVERAGE,
    &rate_limit::BURST,
    &rate_limit::COUNTED_BY,
    &retry::ATTEMPTS_OF_A_REQUEST,
    &retry::RETRY_BUDGET,
    &retry::RETRY_ON,
    &routes::ROUTES,
    &protocol::SCHEME,
    &timeout::CONNECT,
    &timeout::IDLE,
    &timeout::REQUEST,
    &timeout::TRY,
    &tls::CA,
    &tls::SERVER_NAME,
    &protocol::TRAFFIC_TYPE,
];

/// Whose policy an annotation is. The two differ where a route or split leads to another Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The Service that was called.
    Called,
    /// The Service whose endpoint was chosen.
    Backend,
}

/// What people are told about an annotation.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name, without prefix.
    pub name: &'static str,
    /// Whose policy it is.
    pub side: Side,
    /// It may stand on a Namespace, as the default of its Services.
    pub on_namespace: bool,
    /// What a port has to carry for it to have an effect.
    pub protocols: &'static [Protocol],
    /// What its values may be.
    pub values: &'static str,
    /// What is used without it, or in place of a bad value.
    pub default: &'static str,
    /// What it does.
    pub purpose: &'static str,
    /// A value to try.
    pub example: &'static str,
}

/// What an annotation decides about, and how to say what was decided.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    /// The whole Service. It cannot be narrowed to a port.
    Service(fn(&Plan) -> String),
    /// The pods of a Namespace. It stands on that alone.
    Namespace,
    /// Each port. It can be narrowed to one.
    Port(fn(&Port) -> String),
}

/// An annotation whose value is a `T`.
pub(crate) struct Annotation<T> {
    pub(crate) about: About,
    pub(crate) scope: Scope,
    /// Reads a value without surrounding blanks.
    pub(crate) parse: fn(&str) -> Result<T, BadValue>,
    /// What to say of a good value that this version does not carry out.
    pub(crate) unsupported: fn(&T) -> Option<&'static str>,
}

/// A text that is not a value of the annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadValue {
    /// What it should have been.
    expected: &'static str,
    /// Where it stops being that, if that can be said.
    detail: Option<String>,
}

impl BadValue {
    /// The text is none of `values`.
    pub(crate) const fn expected(values: &'static str) -> Self {
        Self { expected: values, detail: None }
    }

    /// With the place where the text goes wrong.
    fn with(self, detail: String) -> Self {
        Self { detail: Some(detail), ..self }
    }
}

/// An annotation of any type.
trait Declared: Sync {
    fn about(&self) -> &About;
    fn scope(&self) -> Scope;
    /// Reads a value. `Ok(Some)` says what this version does not carry out of it.
    fn check_value(&self, text: &str) -> Result<Option<&'static str>, BadValue>;
}

impl<T> Declared for Annotation<T> {
    fn about(&self) -> &About {
        &self.about
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn check_value(&self, text: &str) -> Result<Option<&'static str>, BadValue> {
        (self.parse)(text).map(|value| (self.unsupported)(&value))
    }
}

impl<T> fmt::Debug for Annotation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.about.name)
    }
}

/// What people are told about each annotation that has an effect, sorted by name.
pub fn all() -> impl Iterator<Item = &'static About> {
    ALL.iter().map(|declared| declared.about())
}

fn declared(name: &str) -> Option<&'static dyn Declared> {
    let at = ALL.binary_search_by_key(&name, |declared| declared.about().name).ok()?;
    Some(ALL[at])
}

/// An annotation as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenAnnotation<'a> {
    /// Its key.
    pub(crate) key: &'a str,
    /// Its value, without surrounding blanks.
    pub(crate) text: &'a str,
    /// It names one port.
    pub(crate) narrowed: bool,
    /// It stands on the Service, not on its Namespace.
    pub(crate) on_service: bool,
}

/// An annotation that applies, with its value; `None` where what is written is no value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppliedAnnotation<'a, T> {
    pub(crate) written: WrittenAnnotation<'a>,
    pub(crate) value: Option<T>,
}

/// The annotations in force for one Service: its own and its Namespace's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InForce<'a> {
    pub(crate) service: &'a Annotations,
    pub(crate) namespace: &'a Annotations,
    pub(crate) routes: &'a routes::RoutesReader,
}

impl<'a> InForce<'a> {
    /// `annotation` for the Service as a whole.
    pub(crate) fn get<T>(self, annotation: &Annotation<T>) -> Option<AppliedAnnotation<'a, T>> {
        self.read(annotation, self.find(&annotation.about, &[]))
    }

    /// `annotation` for the port with this number and name: narrowed before general, the number before the name, our
    /// prefix before the old one, the Service before its Namespace.
    pub(crate) fn of_port<T>(
        self,
        annotation: &Annotation<T>,
        number: u16,
        name: Option<&str>,
    ) -> Option<AppliedAnnotation<'a, T>> {
        self.read(annotation, self.find_of_port(&annotation.about, number, name))
    }

    fn read<T>(
        self,
        annotation: &Annotation<T>,
        written: Option<WrittenAnnotation<'a>>,
    ) -> Option<AppliedAnnotation<'a, T>> {
        debug_assert!(declared(annotation.about.name).is_some(), "{annotation:?} is missing in ALL");
        let written = written?;
        Some(AppliedAnnotation { written, value: (annotation.parse)(written.text).ok() })
    }

    fn find_of_port(self, about: &About, number: u16, name: Option<&str>) -> Option<WrittenAnnotation<'a>> {
        // Most Services have no annotation of ours at all.
        if self.service.is_empty() && self.namespace.is_empty() {
            return None;
        }
        let number = number.to_string();
        match name {
            Some(name) => self.find(about, &[&number, name]),
            None => self.find(about, &[&number]),
        }
    }

    fn find(self, about: &About, ports: &[&str]) -> Option<WrittenAnnotation<'a>> {
        find(self.service, about.name, ports, true)
            .or_else(|| find(self.namespace, about.name, ports, false).filter(|_| about.on_namespace))
    }
}

fn find<'a>(
    annotations: &'a Annotations,
    name: &str,
    ports: &[&str],
    on_service: bool,
) -> Option<WrittenAnnotation<'a>> {
    if annotations.is_empty() {
        return None;
    }
    let get = |key: String, narrowed| {
        let at = annotations.binary_search_by(|(other, _)| (**other).cmp(key.as_str())).ok()?;
        let (key, text) = &annotations[at];
        Some(WrittenAnnotation { key, text: text.trim(), narrowed, on_service })
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(all().map(|about| about.name).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn examples_are_values() {
        for declared in ALL {
            let about = declared.about();
            assert_eq!(declared.check_value(about.example), Ok(None), "{}", about.name);
        }
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
            let in_force =
                InForce { service: &service, namespace: &namespace, routes: &routes::RoutesReader::default() };
            let found = in_force.of_port(&protocol::TRAFFIC_TYPE, 80, Some("web"));
            assert_eq!(found.map(|found| found.written.text), want, "{case}");
        }
    }
}
