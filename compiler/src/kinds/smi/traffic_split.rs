//! TrafficSplits: a share of a Service's traffic for each of several Services.

use std::sync::Arc;

use serde_json::Value;

use super::{only, spec};
use crate::kinds::{
    BadField, Meta, Names, Object, ObjectKind, ReadContext, Registration,
    read::{self, BadValues, Fields},
};

/// Backends of one split that are read.
const MOST_BACKENDS: usize = 64;
/// Largest weight, in thousandths: what a share of the wire form can hold.
const HEAVIEST: f64 = 4e9;

/// What is kept of a TrafficSplit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficSplit {
    /// Metadata.
    pub meta: Meta,
    /// Name of the Service whose traffic is split, in the same namespace.
    pub service: Arc<str>,
    /// Where it goes.
    pub backends: Box<[SplitBackend]>,
    /// Names of the HTTPRouteGroups of which a request has to match one; empty for all requests.
    pub groups: Box<[Arc<str>]>,
}

/// A Service that gets a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitBackend {
    /// Its name, in the same namespace.
    pub service: Arc<str>,
    /// Its weight, in thousandths: the oldest version allows `500m`.
    pub weight: u32,
    /// Its place in the list as written.
    pub index: u16,
}

impl TrafficSplit {
    pub(in crate::kinds) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::TrafficSplit,
        group: "split.smi-spec.io",
        name: "TrafficSplit",
        plural: "trafficsplits",
        versions: &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
        namespaced: true,
        always_served: false,
        names: Names::Subdomain,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::TrafficSplit),
    };

    fn read(meta: Meta, value: &Value, door: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let spec = spec(value)?;
        // Without `matches` all traffic is split.
        only(value, &spec, &["service", "backends", "matches"])?;
        let service = service_in(&spec, &meta.namespace)?;
        let listed = spec.list("backends")?;
        let mut backends = Vec::new();
        for (index, backend) in listed.iter().take(MOST_BACKENDS).enumerate() {
            let path = format!("{}[{index}]", spec.path("backends"));
            let read = SplitBackend::read(index, &path, backend, &meta.namespace, door);
            if let Some(read) = bad.keep(read, "the backend is left out") {
                backends.push(read);
                let known = Fields::of(backend, &path).and_then(|fields| fields.only(&["service", "weight"]));
                let is_known = bad.keep(known, "it is ignored").is_some();
                if is_known && backend.get("weight").is_none_or(Value::is_null) {
                    let missing = BadField::new(format!("{path}.weight"), "is missing");
                    bad.push(missing.instead("the backend gets nothing", "0"));
                }
            }
        }
        if listed.len() > MOST_BACKENDS {
            let many = BadField::new(spec.path("backends"), format!("has {} entries", listed.len()));
            bad.push(many.instead("the first 64 are used", "the first 64"));
        }
        let mut groups = Vec::new();
        for (index, group) in spec.list("matches")?.iter().enumerate() {
            let path = format!("{}[{index}]", spec.path("matches"));
            groups.push(group_in(&path, group).map(|name| door.interner.get(name))?);
        }
        let service = door.interner.get(service);
        Ok(Self { meta, service, backends: backends.into_boxed_slice(), groups: groups.into_boxed_slice() })
    }
}

impl SplitBackend {
    fn read(index: usize, path: &str, value: &Value, namespace: &str, door: &ReadContext) -> Result<Self, BadField> {
        let fields = Fields::of(value, &path)?;
        Ok(Self {
            service: door.interner.get(service_in(&fields, namespace)?),
            weight: weight(&fields)?,
            index: u16::try_from(index).unwrap_or(u16::MAX),
        })
    }
}

/// The name of a Service of this namespace at `service`; its full name is understood.
fn service_in<'a>(fields: &Fields<'a>, namespace: &str) -> Result<&'a str, BadField> {
    let path = fields.path("service");
    let text = fields.text("service")?.filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| BadField::new(&path, "is missing"))?;
    let name = match text.split_once('.') {
        Some((name, rest))
            if rest == namespace || rest.strip_prefix(namespace).is_some_and(|it| it.starts_with(".svc")) =>
        {
            name
        }
        Some(_) => return Err(BadField::text(&path, text, "a Service of the namespace of the split")),
        None => text,
    };
    Names::Label.check(&path, name)?;
    Ok(name)
}

/// A weight in thousandths, from a number or a quantity of Kubernetes such as `500m` or `2`. Absent is 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn weight(fields: &Fields<'_>) -> Result<u32, BadField> {
    let (path, want) = (fields.path("weight"), "a weight such as 90, from 0 to 4000000");
    let (number, bad) = match fields.get("weight") {
        None => return Ok(0),
        Some(Value::Number(number)) => (number.as_f64(), BadField::wrong(path, &Value::Number(number.clone()), want)),
        Some(Value::String(text)) => {
            let (digits, scale) = match text.strip_suffix('m') {
                Some(digits) => (digits, 0.001),
                None => match text.strip_suffix('k') {
                    Some(digits) => (digits, 1000.0),
                    None => (text.as_str(), 1.0),
                },
            };
            (digits.parse::<f64>().ok().map(|number| number * scale), BadField::text(path, text, want))
        }
        Some(other) => return Err(BadField::wrong(path, other, want)),
    };
    let thousandths = number.map(|number| (number * 1000.0).round()).filter(|it| (0.0..=HEAVIEST).contains(it));
    thousandths.map(|it| it as u32).ok_or(bad)
}

/// The name of the HTTPRouteGroup in an entry of `matches`.
fn group_in<'a>(path: &str, value: &'a Value) -> Result<&'a str, BadField> {
    let fields = Fields::of(value, &path)?;
    let kind = fields.text("kind")?.unwrap_or("HTTPRouteGroup");
    if kind != "HTTPRouteGroup" {
        return Err(BadField::text(fields.path("kind"), kind, "HTTPRouteGroup"));
    }
    let (path, name) = read::text_in(value, path, "name")?;
    if name.is_empty() {
        return Err(BadField::new(path, "is missing"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<(TrafficSplit, Vec<String>), String> {
        let read = TrafficSplit::REGISTRATION.read(value, &ReadContext::default());
        match read.map_err(|bad| bad.to_string())? {
            (Object::TrafficSplit(split), bad) => Ok((split, bad.iter().map(ToString::to_string).collect())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn weights_of_every_version() {
        for (weight, want) in [
            (json!(75), Some(75_000)),
            (json!(0.5), Some(500)),
            (json!("1"), Some(1_000)),
            (json!("500m"), Some(500)),
            (json!("2k"), Some(2_000_000)),
            (Value::Null, Some(0)),
            (json!(-1), None),
            (json!("many"), None),
            (json!("-5m"), None),
            (json!(5e9), None),
            (json!([1]), None),
        ] {
            let split = json!({"metadata": {"name": "s"}, "spec": {"service": "web",
                "backends": [{"service": "web-v1", "weight": weight}, {"service": "web-v2", "weight": 1}]}});
            let (split, bad) = read(&split).unwrap_or_else(|bad| panic!("{weight}: {bad}"));
            let got = split.backends.iter().find(|backend| &*backend.service == "web-v1").map(|backend| backend.weight);
            let is_said = want.is_none() || weight.is_null();
            assert_eq!((got, bad.len()), (want, usize::from(is_said)), "{weight}: {bad:?}");
        }
    }

    #[test]
    fn fields_stand_under_spec_or_beside_it() {
        let body = json!({"service": "web", "backends": [{"service": "web-v1", "weight": 1}],
            "matches": [{"kind": "HTTPRouteGroup", "name": "beta", "apiGroup": "specs.smi-spec.io"}]});
        let mut beside = body.clone();
        beside["metadata"] = json!({"name": "s"});
        for split in [json!({"metadata": {"name": "s"}, "spec": body}), beside] {
            let (split, bad) = read(&split).expect("a split");
            assert_eq!((&*split.service, split.backends.len(), &*split.groups[0]), ("web", 1, "beta"));
            assert!(bad.is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn a_misspelt_field_is_said() {
        let split = |spec: Value| read(&json!({"metadata": {"name": "s"}, "spec": spec}));
        let (_, bad) = split(json!({"service": "web", "backends": [{"service": "v1", "weigth": 1}]})).expect("a split");
        let want = "spec.backends[0].weigth is no field that may stand there: service, weight; it is ignored. Did you mean weight?";
        assert_eq!(bad, [want]);
        // Without its `matches` it would split all traffic.
        let bad = split(json!({"service": "web", "backends": [], "matchs": []})).expect_err("no split");
        assert!(bad.starts_with("spec.matchs is no field") && bad.ends_with("Did you mean matches?"), "{bad}");
    }

    #[test]
    fn services_are_of_the_same_namespace() {
        for (service, want) in [
            ("web", Some("web")),
            ("web.default", Some("web")),
            ("web.default.svc.cluster.local", Some("web")),
            ("web.shop", None),
            ("", None),
            ("Web", None),
        ] {
            let split = json!({"metadata": {"name": "s"}, "spec": {"service": service}});
            let got = read(&split).ok().map(|(split, _)| split.service);
            assert_eq!(got.as_deref(), want, "{service:?}");
        }
    }
}
