//! Takes fields out of JSON, and says exactly which one is not what it should be.
//!
//! By hand and not by derived types: these stop at the first bad value, and one bad endpoint must not take a slice of a
//! thousand down. They would also read all that the mesh has no use for.

use std::{fmt, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Labels, Meta, ObjectKind, ReadContext, Registration};
use crate::diagnostic::{Diagnostic, ObjectRef, Reason, did_you_mean, shortened};

/// A value that cannot be used, what happens instead, and the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {problem}; {instead}. {fix}")]
pub struct BadField {
    /// Why, as one stable word.
    pub reason: Reason,
    /// Path of the field: `spec.ports[0].port`.
    pub path: String,
    /// What is wrong, with the value: `is missing`, `is "80", not a list`.
    pub problem: Box<str>,
    /// The value as written, if there is one that fits in a message.
    pub value: Option<String>,
    /// What happens instead.
    pub instead: &'static str,
    /// What is used instead.
    pub using: &'static str,
    /// The next step.
    pub fix: Box<str>,
}

impl BadField {
    /// A field that keeps its whole object out; see [`Self::instead`].
    pub(super) fn new(path: impl fmt::Display, problem: impl Into<Box<str>>) -> Self {
        Self {
            reason: Reason::InvalidObject,
            path: path.to_string(),
            problem: problem.into(),
            value: None,
            instead: "the object is left out",
            using: "nothing",
            fix: "Correct the field.".into(),
        }
    }

    /// A restriction that says nothing.
    pub(super) fn empty(path: impl fmt::Display) -> Self {
        Self {
            fix: "Write its value, or leave the field away if nothing is to be restricted.".into(),
            ..Self::new(path, "is empty")
        }
    }

    /// A text that is not what it must be.
    pub(super) fn text(path: impl fmt::Display, value: &str, want: &str) -> Self {
        Self { value: Some(value.into()), ..Self::new(path, format!("is {:?}, not {want}", shortened(value))) }
    }

    /// A value of the wrong type.
    pub(super) fn wrong(path: impl fmt::Display, value: &Value, want: &str) -> Self {
        let said = match value {
            Value::Null => "null".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a map".to_owned(),
            Value::String(text) => format!("{:?}", shortened(text)),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
        };
        let mut bad = Self::new(path, format!("is {said}, not {want}"));
        bad.value = match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            _ => None,
        };
        if let Value::String(text) = value
            && (text.parse::<f64>().is_ok() || matches!(&**text, "true" | "false"))
        {
            bad.fix = "Remove the quotes.".into();
        } else if want == "a string" && bad.value.is_some() {
            bad.fix = "Put it in quotes.".into();
        }
        bad
    }

    /// An address that is none.
    pub(super) fn address(path: impl fmt::Display, text: &str) -> Self {
        Self { reason: Reason::InvalidAddress, ..Self::text(path, text, "an IP address") }
    }

    /// An `apiVersion` that is not read.
    pub fn version(kind: &Registration, written: &str) -> Self {
        let of = if kind.group.is_empty() { String::new() } else { format!("{}/", kind.group) };
        let known: Vec<_> = kind.versions.iter().map(|version| format!("{of}{version}")).collect();
        let known = known.join(" or ");
        let fix = format!("Write {known}.").into();
        Self { fix, ..Self::text("apiVersion", written, &format!("{known}, of which {} is read", kind.name)) }
    }

    /// With what happens instead, and what is used.
    #[must_use]
    pub(super) fn instead(mut self, instead: &'static str, using: &'static str) -> Self {
        (self.instead, self.using) = (instead, using);
        self
    }

    /// Proposes the one of `known` that was probably meant.
    #[must_use]
    pub(super) fn one_of<'k>(mut self, known: impl IntoIterator<Item = &'k str>) -> Self {
        if let Some(meant) = self.value.as_deref().and_then(|value| did_you_mean(value, known)) {
            self.fix = format!("Did you mean {meant}?").into();
        }
        self
    }

    /// The same as a finding about `object`: an error where it keeps the object out, else a warning.
    pub fn diagnostic(&self, object: ObjectRef, keeps_out: bool) -> Diagnostic {
        let mut found = match keeps_out {
            true => Diagnostic::error(self.reason, object, self),
            false => Diagnostic::warning(self.reason, object, self),
        };
        found = found.field(self.path.as_str()).using(self.using);
        match &self.value {
            Some(value) => found.value(value),
            None => found,
        }
    }
}

/// Bad values of one object that are named one by one.
const MOST_NAMED: usize = 10;

/// What is wrong inside an object that stands all the same.
#[derive(Debug, Default)]
pub struct BadValues {
    named: Vec<BadField>,
    more: usize,
}

impl BadValues {
    pub(super) fn push(&mut self, bad: BadField) {
        if self.named.len() < MOST_NAMED {
            self.named.push(bad);
        } else {
            self.more += 1;
        }
    }

    /// What was read; what was not is left out, and noted as `instead`.
    pub(super) fn keep<T>(&mut self, read: Result<T, BadField>, instead: &'static str) -> Option<T> {
        read.map_err(|bad| self.push(bad.instead(instead, "nothing"))).ok()
    }

    /// The addresses among these texts; the others are noted.
    pub(super) fn addresses<'t>(&mut self, texts: impl IntoIterator<Item = (String, &'t str)>) -> Vec<IpAddr> {
        let mut good = Vec::new();
        for (path, text) in texts {
            match address(text) {
                Some(address) => good.push(address),
                None => self.push(BadField::address(path, text).instead("it is left out", "nothing")),
            }
        }
        good
    }

    /// The text at `key` where it is one of `known`; anything else is noted, and counts as the first of them.
    pub(super) fn one_of<'v>(&mut self, fields: &Fields<'v>, key: &str, known: &[&'static str]) -> Option<&'v str> {
        let first = known.first().copied().unwrap_or_default();
        let read = fields.one_of(key, known);
        read.map_err(|bad| self.push(bad.instead("it counts as if it were absent", first))).ok().flatten()
    }

    /// Everything that is wrong, with a word about what is not named.
    pub(super) fn into_named(self) -> Vec<BadField> {
        let mut named = self.named;
        if self.more > 0 {
            let (problem, instead) = match self.more {
                1 => ("and 1 more field of this object has a bad value".to_owned(), "it is left out"),
                more => (format!("and {more} more fields of this object have bad values"), "they are left out"),
            };
            let fix = "Correct those that are named first.".into();
            named.push(BadField { fix, ..BadField::new("…", problem) }.instead(instead, "nothing"));
        }
        named
    }
}

/// A map of an object, and the path at which it stands.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: Option<&'a Map<String, Value>>,
    path: &'a dyn fmt::Display,
}

/// A path below another one.
struct Below<'a>(&'a dyn fmt::Display, &'a str);

impl fmt::Display for Below<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outer = self.0.to_string();
        if outer.is_empty() { f.write_str(self.1) } else { write!(f, "{outer}.{}", self.1) }
    }
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which must be a map or absent.
    pub(super) fn of(value: &'a Value, path: &'a dyn fmt::Display) -> Result<Self, BadField> {
        match value {
            Value::Object(map) => Ok(Self { map: Some(map), path }),
            Value::Null => Ok(Self { map: None, path }),
            other => Err(BadField::wrong(path, other, "a map")),
        }
    }

    /// The value at `key`; null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    /// Whether there are no fields but these. Where a field may be a restriction, what is not known must not be passed over.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), BadField> {
        self.only_with(known, &[])
    }

    /// The same, with fields that may stand there and are not named.
    pub(super) fn only_with(&self, known: &[&str], besides: &[&str]) -> Result<(), BadField> {
        let mut keys = self.map.into_iter().flat_map(Map::keys).map(String::as_str);
        let Some(odd) = keys.find(|key| !known.contains(key) && !besides.contains(key)) else { return Ok(()) };
        let bad = BadField::new(self.path(odd), format!("is no field that may stand there: {}", known.join(", ")));
        Err(BadField { value: Some(odd.to_owned()), ..bad }.one_of(known.iter().copied()))
    }

    /// What stands at `key` says something: null, or an empty text, list or map, is what is left where a value is missing.
    pub(super) fn not_empty(&self, key: &str) -> Result<(), BadField> {
        let is_empty = match self.map.and_then(|map| map.get(key)) {
            Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            _ => false,
        };
        if is_empty { Err(BadField::empty(self.path(key))) } else { Ok(()) }
    }

    /// Path of `key`.
    pub(super) fn path(&self, key: &str) -> String {
        Below(self.path, key).to_string()
    }

    fn map_of(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, BadField> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(BadField::wrong(Below(self.path, key), other, "a map")),
        }
    }

    /// The text at `key`.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, BadField> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(BadField::wrong(Below(self.path, key), other, "a string")),
        }
    }

    /// The text at `key`, which must be one of `known`; empty counts as absent.
    pub(super) fn one_of(&self, key: &str, known: &[&'static str]) -> Result<Option<&'a str>, BadField> {
        match self.text(key)? {
            Some(text) if !text.is_empty() && !known.contains(&text) => {
                let bad = BadField::text(Below(self.path, key), text, &known.join(" or "));
                Err(bad.one_of(known.iter().copied()))
            }
            text => Ok(text),
        }
    }

    /// The boolean at `key`. kubectl reads YAML 1.1, where more words are booleans; a cluster has true and false only.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, BadField> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if matches!(&**text, "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => {
                Ok(Some(true))
            }
            Some(Value::String(text)) if matches!(&**text, "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => {
                Ok(Some(false))
            }
            Some(other) => Err(BadField::wrong(Below(self.path, key), other, "true or false")),
        }
    }

    /// The number at `key`.
    pub(super) fn number(&self, key: &str) -> Result<Option<i64>, BadField> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => {
                value.as_i64().map(Some).ok_or_else(|| BadField::wrong(Below(self.path, key), value, "a whole number"))
            }
        }
    }

    /// The port number at `key`.
    pub(super) fn port(&self, key: &str) -> Result<Option<u16>, BadField> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_i64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        let bad = || BadField {
            reason: Reason::InvalidPort,
            ..BadField::wrong(Below(self.path, key), value, "a number from 1 to 65535")
        };
        number.map(Some).ok_or_else(bad)
    }

    /// The list at `key`; absent is empty.
    pub(super) fn list(&self, key: &str) -> Result<&'a [Value], BadField> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(BadField::wrong(Below(self.path, key), other, "a list")),
        }
    }

    /// The texts in the list at `key`.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, BadField> {
        let text = |(i, value): (usize, &'a Value)| {
            let path = || format!("{}[{i}]", self.path(key));
            value.as_str().ok_or_else(|| BadField::wrong(path(), value, "a string"))
        };
        self.list(key)?.iter().enumerate().map(text).collect()
    }

    /// Pairs of texts at `key` whose key `wanted` accepts, sorted by key.
    pub(super) fn pairs(
        &self,
        key: &str,
        wanted: impl Fn(&str) -> bool,
        mut intern: impl FnMut(&str, &str) -> (Arc<str>, Arc<str>),
    ) -> Result<Labels, BadField> {
        let Some(map) = self.map_of(key)? else { return Ok(Box::default()) };
        let mut pairs = Vec::new();
        for (name, value) in map.iter().filter(|(name, _)| wanted(name)) {
            let Value::String(text) = value else {
                return Err(BadField::wrong(format!("{}[{name}]", self.path(key)), value, "a string"));
            };
            pairs.push(intern(name, text));
        }
        pairs.sort_unstable();
        Ok(pairs.into_boxed_slice())
    }
}

/// The fields of the map at `key` of `value`, with that key as their path.
pub(super) fn part<'a>(value: &'a Value, key: &'static &'static str) -> Result<Fields<'a>, BadField> {
    match value.get(*key) {
        None => Ok(Fields { map: None, path: key }),
        Some(inner) => Fields::of(inner, key),
    }
}

/// Which names Kubernetes accepts for objects of a kind, and for what is inside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// One label of a DNS name.
    Label,
    /// Labels of a DNS name with dots between.
    Subdomain,
}

impl Names {
    pub(super) fn check(self, path: impl fmt::Display, name: &str) -> Result<(), BadField> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_label = |label: &str| {
            let ends = [label.as_bytes().first(), label.as_bytes().last()];
            ends.iter().all(|end| end.is_some_and(|end| inner(*end))) && label.bytes().all(|c| inner(c) || c == b'-')
        };
        let (good, longest, also) = match self {
            Self::Label => (is_label(name), 63, "-"),
            Self::Subdomain => (name.split('.').all(is_label), 253, "- and ."),
        };
        if good && name.len() <= longest {
            return Ok(());
        }
        let want = format!(
            "a name that Kubernetes accepts: at most {longest} lower-case letters, digits, {also}, the first and last no {}",
            also.replace("and", "or")
        );
        Err(BadField { fix: "Give it another name.".into(), ..BadField::text(path, name, &want) })
    }
}

/// The text at `key` of the map `entry`, empty if absent, with its path.
pub(super) fn text_in<'a>(entry: &'a Value, path: &str, key: &str) -> Result<(String, &'a str), BadField> {
    let Value::Object(map) = entry else { return Err(BadField::wrong(path, entry, "a map")) };
    let path = format!("{path}.{key}");
    match map.get(key) {
        None | Some(Value::Null) => Ok((path, "")),
        Some(Value::String(text)) => Ok((path, text)),
        Some(other) => Err(BadField::wrong(path, other, "a string")),
    }
}

/// Reads the metadata.
pub(super) fn meta(of: &Registration, value: &Value, door: &ReadContext) -> Result<Meta, BadField> {
    let fields = part(value, &"metadata")?;
    let name = fields.text("name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| BadField::new("metadata.name", "is missing"))?;
    of.names.check("metadata.name", name)?;
    let namespace = match fields.text("namespace")? {
        _ if !of.namespaced => "",
        None | Some("") => "default",
        Some(namespace) => Names::Label.check("metadata.namespace", namespace).map(|()| namespace)?,
    };
    let created = match fields.text("creationTimestamp")? {
        None => None,
        Some(text) => {
            let bad = |_| BadField::text("metadata.creationTimestamp", text, "a time as in RFC 3339");
            Some(text.parse::<Timestamp>().map_err(bad)?)
        }
    };
    // Names of pods and slices are their own; those of the others return in many places.
    let name = match of.kind {
        ObjectKind::Pod | ObjectKind::EndpointSlice => name.into(),
        _ => door.interner.get(name),
    };
    Ok(Meta { namespace: door.interner.get(namespace), name, created, origin: None })
}

/// An address, without zone.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::Object;

    #[test]
    fn names_that_kubernetes_accepts() {
        for (name, label, subdomain) in [
            ("web", true, true),
            ("0-web", true, true),
            ("web.v1", false, true),
            ("", false, false),
            ("-web", false, false),
            ("web-", false, false),
            ("web..v1", false, false),
            ("Web", false, false),
            ("a/b", false, false),
            ("w\u{1b}b", false, false),
            (&"a".repeat(63), true, true),
            (&"a".repeat(64), false, true),
            (&"a".repeat(253), false, true),
            (&"a".repeat(254), false, false),
        ] {
            assert_eq!(Names::Label.check("name", name).is_ok(), label, "{name:?} as a label");
            assert_eq!(Names::Subdomain.check("name", name).is_ok(), subdomain, "{name:?} as a subdomain");
        }
    }

    /// A thousand bad endpoints are a few findings, and the good one stands.
    #[test]
    fn bad_values_are_bounded_and_the_rest_stands() {
        let mut endpoints = vec![json!({ "addresses": ["x"] }); 1000];
        endpoints.push(json!({ "addresses": ["10.0.0.1", "10.0.0.2"] }));
        let slice = json!({ "metadata": { "name": "a" }, "addressType": "IPv4", "endpoints": endpoints });
        let read = ObjectKind::EndpointSlice.registration().read(&slice, &ReadContext::default());
        let Ok((Object::EndpointSlice(slice), bad)) = read else { panic!("{read:?}") };
        assert_eq!(slice.endpoints.len(), 1);
        assert_eq!(bad.len(), MOST_NAMED + 1);
        let first =
            "endpoints[0].addresses[0] is \"x\", not an IP address; the endpoint is left out. Correct the field.";
        assert_eq!(bad[0].to_string(), first);
        for (count, says) in [
            (1000, "and 990 more fields of this object have bad values; they are left out."),
            (MOST_NAMED + 1, "and 1 more field of this object has a bad value; it is left out."),
        ] {
            let mut values = BadValues::default();
            (0..count).for_each(|_| values.push(BadField::new("a", "is bad")));
            let named = values.into_named();
            assert!(named[MOST_NAMED].to_string().contains(says), "{}", named[MOST_NAMED]);
        }
        assert!(bad[MOST_NAMED].to_string().contains("991 more"), "{}", bad[MOST_NAMED]);
    }
}
