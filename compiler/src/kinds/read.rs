//! Takes fields out of JSON, and says exactly which one is not what it should be.

use std::{fmt, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Door, Labels, Meta, ObjectKind, Registration};

/// A field that is missing or has the wrong type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {problem}")]
pub struct BadField {
    /// Path of the field: `spec.ports[0].port`.
    pub path: String,
    /// What is wrong: `is missing`, `is a string, not a list`.
    pub problem: String,
    /// The value as written, if there is one that fits in a message.
    pub value: Option<String>,
}

impl BadField {
    pub(super) fn new(path: impl fmt::Display, problem: impl Into<String>) -> Self {
        Self { path: path.to_string(), problem: problem.into(), value: None }
    }

    fn wrong(path: impl fmt::Display, value: &Value, want: &str) -> Self {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "a map",
        };
        let value = match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            _ => None,
        };
        Self { path: path.to_string(), problem: format!("is {found}, not {want}"), value }
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

/// Reads the metadata.
pub(super) fn meta(of: &Registration, value: &Value, door: &Door) -> Result<Meta, BadField> {
    let fields = part(value, &"metadata")?;
    let name = fields.text("name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| BadField::new("metadata.name", "is missing"))?;
    // A slash would make one resource name of two objects.
    if name.contains('/') || name.len() > 253 {
        return Err(BadField { value: Some(name.into()), ..BadField::new("metadata.name", "is not a name") });
    }
    let namespace = match fields.text("namespace")? {
        _ if !of.namespaced => "",
        None | Some("") => "default",
        Some(bad) if bad.contains('/') || bad.len() > 63 => {
            let value = Some(bad.into());
            return Err(BadField { value, ..BadField::new("metadata.namespace", "is not a name") });
        }
        Some(namespace) => namespace,
    };
    let created = match fields.text("creationTimestamp")? {
        None => None,
        Some(text) => Some(text.parse::<Timestamp>().map_err(|_| BadField {
            value: Some(text.into()),
            ..BadField::new("metadata.creationTimestamp", "is not a time as in RFC 3339")
        })?),
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
