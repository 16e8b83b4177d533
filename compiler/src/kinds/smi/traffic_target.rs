//! TrafficTargets: who may call the pods of a ServiceAccount, and with what.
//!
//! The rules of a target restrict each other, so one that cannot be read makes all of it worthless.

use std::sync::Arc;

use maesh_config::model::Account;
use serde_json::Value;

use super::{HttpRouteMatch, only, spec};
use crate::kinds::{
    BadField, Meta, Names, Number, Object, ObjectKind, ReadContext, Registration,
    read::{self, BadValues, Fields},
};

/// Rules, and sources, of one target that are read.
const MOST: usize = 256;

/// Matches that one rule names: a group has no more.
const MOST_NAMES: usize = 64;

/// What is kept of a TrafficTarget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficTarget {
    /// Metadata.
    pub meta: Meta,
    /// Whose pods may be called: a ServiceAccount of the target's namespace.
    pub destination: Arc<Account>,
    /// The only port of the pods, or of the Service, that may be called, in the oldest version.
    pub port: Option<Number>,
    /// With what; see [`TrafficTarget::admits_everything`] where there is none.
    pub rules: Box<[TargetRule]>,
    /// Who may call.
    pub sources: Box<[Arc<Account>]>,
    /// It is of a version in which a target without rules admits everything.
    needs_no_rules: bool,
    /// Something that may be about its rules could not be read, and was said.
    pub has_bad_rules: bool,
    /// A source could not be read, which was said.
    pub has_bad_sources: bool,
}

/// One rule of a TrafficTarget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRule {
    /// What it names.
    pub kind: RuleKind,
    /// The object's name, in the namespace of the target.
    pub name: Arc<str>,
    /// The matches of the group that count; all of them if `None`.
    pub matches: Option<Box<[Arc<str>]>>,
    /// Its place in the list as written.
    pub index: u16,
}

impl TargetRule {
    /// Whether this match of its group counts.
    pub fn names(&self, one: &HttpRouteMatch) -> bool {
        self.matches.as_ref().is_none_or(|names| names.contains(&one.name))
    }
}

/// What a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// An HTTPRouteGroup: requests.
    Http,
    /// A TCPRoute: ports.
    Tcp,
    /// A UDPRoute: ports.
    Udp,
}

impl TrafficTarget {
    pub(in crate::kinds) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::TrafficTarget,
        group: "access.smi-spec.io",
        name: "TrafficTarget",
        plural: "traffictargets",
        versions: &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
        namespaced: true,
        always_served: false,
        names: Names::Subdomain,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::TrafficTarget),
    };

    /// Whether it says nothing of what may be called, and means everything by that.
    pub fn admits_everything(&self) -> bool {
        self.rules.is_empty() && self.needs_no_rules
    }

    fn read(meta: Meta, value: &Value, door: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let spec = spec(value)?;
        let known = only(value, &spec, &["destination", "sources", "rules", "specs"]);
        let path = spec.path("destination");
        let Some(destination) = spec.get("destination") else {
            known?;
            return Err(BadField::new(path, "is missing"));
        };
        let destination = Fields::of(destination, &path)?;
        let account = account(&destination, &meta.namespace, door)?;
        destination.not_empty("port")?;
        let port = destination.get("port").map(|port| port_of(&destination, port)).transpose()?;
        if *account.namespace != *meta.namespace {
            return Err(BadField::text(
                destination.path("namespace"),
                &account.namespace,
                "the namespace of the target itself",
            ));
        }
        let key = if spec.get("rules").is_some() { "rules" } else { "specs" };
        let (listed, mut rules) = (spec.list(key)?, Vec::new());
        for (index, rule) in listed.iter().take(MOST).enumerate() {
            let path = format!("{}[{index}]", spec.path(key));
            let read = TargetRule::read(index, &path, rule, door);
            rules.extend(bad.keep(read, "nothing is admitted by the whole target"));
        }
        if listed.len() > MOST {
            let many = BadField::new(spec.path(key), format!("has {} entries", listed.len()));
            bad.push(many.instead("256 are the most, so nothing is admitted by the whole target", "nothing"));
        }
        let is_known = bad.keep(known, "nothing is admitted by the whole target").is_some();
        if rules.len() < listed.len() || !is_known {
            rules.clear();
        }
        let has_bad_rules = rules.len() < listed.len() || !is_known;
        let (mut sources, listed_sources) = (Vec::new(), bounded(&spec, "sources", bad)?);
        for (index, source) in listed_sources.iter().enumerate() {
            let path = format!("{}[{index}]", spec.path("sources"));
            let read = Fields::of(source, &path).and_then(|fields| self::account(&fields, &meta.namespace, door));
            sources.extend(bad.keep(read, "nobody is admitted by it"));
        }
        let has_bad_sources = sources.len() < listed_sources.len();
        sources.sort_unstable();
        sources.dedup();
        let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        // A list that has bad entries alone is no list without entries.
        let is_old = version.ends_with("/v1alpha1") || version.ends_with("/v1alpha2");
        let needs_no_rules = listed.is_empty() && is_known && is_old;
        let (rules, sources) = (rules.into(), sources.into());
        Ok(Self { meta, destination: account, port, rules, sources, needs_no_rules, has_bad_rules, has_bad_sources })
    }
}

impl TargetRule {
    fn read(index: usize, path: &str, value: &Value, door: &ReadContext) -> Result<Self, BadField> {
        let fields = Fields::of(value, &path)?;
        fields.only(&["kind", "name", "matches"])?;
        let kind = match fields.text("kind")?.unwrap_or_default() {
            "HTTPRouteGroup" => RuleKind::Http,
            "TCPRoute" => RuleKind::Tcp,
            "UDPRoute" => RuleKind::Udp,
            other => return Err(BadField::text(fields.path("kind"), other, "HTTPRouteGroup, TCPRoute or UDPRoute")),
        };
        let (named, name) = read::text_in(value, path, "name")?;
        if name.is_empty() {
            return Err(BadField::new(named, "is missing"));
        }
        let names = fields.texts("matches")?;
        fields.not_empty("matches")?;
        if names.len() > MOST_NAMES {
            return Err(BadField::new(fields.path("matches"), format!("has {} entries; 64 are the most", names.len())));
        }
        let matches = fields.get("matches").map(|_| names.into_iter().map(|name| door.interner.get(name)).collect());
        Ok(Self { kind, name: door.interner.get(name), matches, index: u16::try_from(index).unwrap_or(u16::MAX) })
    }
}

/// The entries at `key` that are read.
fn bounded<'a>(spec: &Fields<'a>, key: &str, bad: &mut BadValues) -> Result<&'a [Value], BadField> {
    let all = spec.list(key)?;
    if all.len() > MOST {
        let many = BadField::new(spec.path(key), format!("has {} entries", all.len()));
        bad.push(many.instead("the first 256 are read", "the first 256"));
    }
    Ok(&all[..all.len().min(MOST)])
}

/// The port of a destination.
fn port_of(fields: &Fields<'_>, value: &Value) -> Result<Number, BadField> {
    let number = Number::of(value);
    // Texts of numbers are taken for them: some clients write all values so.
    let port = match &number {
        Number::Int(_) => number.port(),
        Number::Text(text) => text.parse().ok().filter(|port| *port > 0),
    };
    match port {
        Some(port) => Ok(Number::Int(i64::from(port))),
        None => Err(BadField::wrong(fields.path("port"), value, "a number from 1 to 65535")),
    }
}

/// The ServiceAccount that a subject names. Without a namespace it is one of the target's.
fn account(fields: &Fields<'_>, namespace: &str, door: &ReadContext) -> Result<Arc<Account>, BadField> {
    fields.only(&["kind", "name", "namespace", "port"])?;
    let kind = fields.text("kind")?.filter(|kind| !kind.is_empty());
    let kind = kind.ok_or_else(|| BadField::new(fields.path("kind"), "is missing; it is ServiceAccount"))?;
    if kind != "ServiceAccount" {
        return Err(BadField::text(fields.path("kind"), kind, "ServiceAccount"));
    }
    let name = fields.text("name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| BadField::new(fields.path("name"), "is missing"))?;
    Names::Subdomain.check(fields.path("name"), name)?;
    let namespace = fields.text("namespace")?.filter(|it| !it.is_empty()).unwrap_or(namespace);
    Names::Label.check(fields.path("namespace"), namespace)?;
    Ok(Arc::new(Account::new(door.interner.get(namespace), door.interner.get(name))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<(TrafficTarget, Vec<String>), String> {
        let read = TrafficTarget::REGISTRATION.read(value, &ReadContext::default());
        match read.map_err(|bad| bad.to_string())? {
            (Object::TrafficTarget(target), bad) => Ok((target, bad.iter().map(ToString::to_string).collect())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_version_says_the_same() {
        let body = json!({
            "destination": {"kind": "ServiceAccount", "name": "b", "namespace": "default"},
            "sources": [{"kind": "ServiceAccount", "name": "c", "namespace": "shop"}, {"kind": "ServiceAccount", "name": "a"}],
        });
        let rule =
            json!([{"kind": "HTTPRouteGroup", "name": "g", "matches": ["m"]}, {"kind": "TCPRoute", "name": "t"}]);
        for (version, under_spec, key) in [
            ("v1alpha1", false, "specs"),
            ("v1alpha2", true, "rules"),
            ("v1alpha3", true, "rules"),
            ("v1alpha4", true, "rules"),
        ] {
            let mut body = body.clone();
            body[key] = rule.clone();
            let mut target = if under_spec { json!({"spec": body}) } else { body };
            target["metadata"] = json!({"name": "t"});
            target["apiVersion"] = format!("access.smi-spec.io/{version}").into();
            let (target, bad) = read(&target).unwrap_or_else(|bad| panic!("{version}: {bad}"));
            assert!(bad.is_empty(), "{version}: {bad:?}");
            let sources: Vec<_> = target.sources.iter().map(ToString::to_string).collect();
            assert_eq!(
                (target.destination.to_string().as_str(), sources.join(" ")),
                ("default/b", "default/a shop/c".into())
            );
            let kinds: Vec<_> = target.rules.iter().map(|rule| (rule.kind, rule.matches.is_some())).collect();
            assert_eq!(kinds, [(RuleKind::Http, true), (RuleKind::Tcp, false)], "{version}");
        }
    }

    #[test]
    fn without_rules_the_version_decides() {
        for (version, rules, want) in [
            ("v1alpha1", json!([]), true),
            ("v1alpha2", Value::Null, true),
            ("v1alpha2", json!([{"kind": "Nonsense", "name": "x"}]), false),
            ("v1alpha3", json!([]), false),
        ] {
            let target = json!({"apiVersion": format!("access.smi-spec.io/{version}"), "metadata": {"name": "t"},
                "spec": {"destination": {"kind": "ServiceAccount", "name": "b"}, "rules": rules}});
            let (target, _) = read(&target).expect("a target");
            assert_eq!(target.admits_everything(), want, "{version} {rules}");
        }
    }

    /// A misspelt name must not make a target of which nothing is left but that it admits everything.
    #[test]
    fn what_is_not_known_admits_nothing() {
        let destination = json!({"kind": "ServiceAccount", "name": "b"});
        for (version, target, says) in [
            ("v1alpha2", json!({"spec": {"destination": destination, "rule": []}}), "spec.rule is no field"),
            ("v1alpha1", json!({"destination": destination, "spects": []}), "spects is no field"),
            (
                "v1alpha2",
                json!({"spec": {"destination": destination, "rules": [], "only": 1}}),
                "spec.only is no field",
            ),
            (
                "v1alpha2",
                json!({"spec": {"destination": destination}, "rules": [{"kind": "TCPRoute", "name": "t"}]}),
                "rules stands beside spec, not in it",
            ),
            ("v1alpha2", json!({"spec": {"destination": destination}, "only": 1}), "only is no field"),
            (
                "v1alpha2",
                json!({"spec": {"destination": destination}, "status": {"rules": []}}),
                "status.rules stands under status",
            ),
            (
                "v1alpha1",
                json!({"metadata": {"name": "t", "specs": []}, "spec": {"destination": destination}}),
                "metadata.specs stands under metadata",
            ),
        ] {
            let mut target = target;
            target["metadata"]["name"] = "t".into();
            target["apiVersion"] = format!("access.smi-spec.io/{version}").into();
            let (target, bad) = read(&target).expect("a target");
            assert!(!target.admits_everything() && target.rules.is_empty(), "{says}");
            assert!(bad[0].starts_with(says) && bad[0].contains("nothing is admitted by the whole target"), "{bad:?}");
        }
        for (target, says) in [
            (json!({"metadata": {"name": "t"}, "specs": {"destination": destination}}), "destination is missing"),
            (
                json!({"metadata": {"name": "t"}, "spec": {"destinations": destination}}),
                "spec.destinations is no field",
            ),
            (json!({"metadata": {"name": "t"}, "spec": {"rules": []}}), "spec.destination is missing"),
            (
                json!({"metadata": {"name": "t"}, "spec": {"destination": {"name": "b"}}}),
                "spec.destination.kind is missing",
            ),
        ] {
            let bad = read(&target).expect_err("no target");
            assert!(bad.starts_with(says), "{bad}");
        }
    }

    #[test]
    fn one_bad_rule_makes_the_target_worthless() {
        for bad_rule in [
            json!({"kind": "HttpRouteGroup", "name": "g"}),
            json!({"kind": "HTTPRouteGroup", "name": "g", "matches": "all"}),
            json!({"kind": "HTTPRouteGroup", "name": "g", "matches": []}),
            json!({"kind": "HTTPRouteGroup", "name": "g", "matches": null}),
            json!({"kind": "HTTPRouteGroup", "name": "g", "match": ["m"]}),
            json!({"kind": "HTTPRouteGroup"}),
            json!({"kind": "HTTPRouteGroup", "name": 5}),
            json!({"kind": "HTTPRouteGroup", "name": "g", "matches": vec!["m"; 65]}),
            json!({"name": "g"}),
            json!(5),
        ] {
            for version in ["v1alpha1", "v1alpha3"] {
                let target = json!({"apiVersion": format!("access.smi-spec.io/{version}"), "metadata": {"name": "t"},
                    "spec": {"destination": {"kind": "ServiceAccount", "name": "b"},
                        "rules": [{"kind": "TCPRoute", "name": "t"}, bad_rule.clone()]}});
                let (target, bad) = read(&target).expect("a target");
                assert!(target.rules.is_empty() && !target.admits_everything(), "{bad_rule}");
                assert!(bad[0].contains("nothing is admitted by the whole target"), "{bad:?}");
            }
        }
        let many = vec![json!({"kind": "TCPRoute", "name": "t"}); 257];
        let target = json!({"metadata": {"name": "t"},
            "spec": {"destination": {"kind": "ServiceAccount", "name": "b"}, "rules": many}});
        assert!(read(&target).expect("a target").0.rules.is_empty());
    }

    #[test]
    fn a_port_is_a_number() {
        for (port, good) in [
            (json!(8080), true),
            (json!("8080"), true),
            (Value::Null, false),
            (json!(""), false),
            (json!("nine"), false),
            (json!(0), false),
            (json!(-1), false),
            (json!([9000]), false),
            (json!(9000.5), false),
            (json!(65536), false),
        ] {
            let target = json!({"metadata": {"name": "t"}, "spec": {"destination":
                {"kind": "ServiceAccount", "name": "b", "port": port}, "rules": []}});
            assert_eq!(read(&target).is_ok(), good, "{port}");
        }
    }

    #[test]
    fn what_names_nobody_admits_nobody() {
        let target = |destination: Value, source: Value| {
            json!({"metadata": {"name": "t"}, "spec": {"destination": destination, "sources": [source],
                "rules": [{"kind": "TCPRoute", "name": "x"}]}})
        };
        let good = || json!({"kind": "ServiceAccount", "name": "b"});
        for (case, source) in [
            ("a group", json!({"kind": "Group", "name": "x"})),
            ("no name", json!({"kind": "ServiceAccount"})),
            ("no kind", json!({"name": "x"})),
            ("a name that cannot be", json!({"kind": "ServiceAccount", "name": "a/b"})),
        ] {
            let (target, bad) = read(&target(good(), source)).expect("a target");
            assert_eq!((target.sources.len(), bad.len()), (0, 1), "{case}: {bad:?}");
        }
        for destination in
            [json!({"kind": "ServiceAccount", "name": "b", "namespace": "other"}), json!({"name": "b"}), Value::Null]
        {
            assert!(read(&target(destination.clone(), good())).is_err(), "{destination}");
        }
    }
}
