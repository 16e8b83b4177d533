//! Changes at random, of every kind that the controller reads.

use std::collections::BTreeMap;

use maesh_compiler::kinds::ObjectKind;
use maesh_test_support::until;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    api::{self, Api},
    values,
};
use crate::support::PATIENCE;

/// The kinds of SMI: of two groups, two versions.
pub(crate) const SMI: &str = concat!(
    include_str!("../../../../tests/nodes/manifests/smi.yaml"),
    r#"---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: udproutes.specs.smi-spec.io}
spec:
  group: specs.smi-spec.io
  scope: Namespaced
  names: {kind: UDPRoute, plural: udproutes, singular: udproute}
  versions:
  - {name: v1alpha4, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
"#
);

/// What changes, as often as it is here.
pub(crate) const KINDS: [ObjectKind; 24] = [
    ObjectKind::Namespace,
    ObjectKind::Node,
    ObjectKind::ServiceAccount,
    ObjectKind::ConfigMap,
    ObjectKind::ConfigMap,
    ObjectKind::Pod,
    ObjectKind::Pod,
    ObjectKind::Pod,
    ObjectKind::Service,
    ObjectKind::Service,
    ObjectKind::Service,
    ObjectKind::Service,
    ObjectKind::EndpointSlice,
    ObjectKind::EndpointSlice,
    ObjectKind::EndpointSlice,
    ObjectKind::HttpRouteGroup,
    ObjectKind::HttpRouteGroup,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
    ObjectKind::TrafficSplit,
    ObjectKind::TrafficSplit,
    ObjectKind::TrafficTarget,
    ObjectKind::TrafficTarget,
    ObjectKind::TrafficTarget,
];

/// A kind is removed in one of so many changes, and comes back in one of so many.
const REMOVED: u32 = 300;
const INSTALLED: u32 = 40;

/// Makes changes, and keeps what it made.
pub(crate) struct Changes {
    pub(crate) api: Api,
    /// Each change that the API server took, in words.
    pub(crate) history: Vec<String>,
    /// How many of each kind.
    pub(crate) made: BTreeMap<ObjectKind, usize>,
    pub(crate) refused: usize,
    /// The kinds that are installed, and those that are not.
    installed: Vec<Value>,
    removed: Vec<Value>,
}

impl Changes {
    pub(crate) fn new(api: Api) -> Self {
        let installed = SMI.split("---\n").map(|text| serde_saphyr::from_str(text).expect("YAML")).collect();
        let (made, history, removed) = (BTreeMap::new(), Vec::new(), Vec::new());
        let this = Self { api, history, made, refused: 0, installed, removed };
        for namespace in values::NAMESPACES {
            this.create_namespace(namespace, &json!({"app": "soak"})).expect("a namespace");
        }
        this
    }

    /// Makes one change.
    pub(crate) fn make(&mut self, rng: &mut StdRng) {
        if !self.removed.is_empty() && rng.random_range(0..INSTALLED) == 0 {
            return self.install(rng);
        }
        if !self.installed.is_empty() && rng.random_range(0..REMOVED) == 0 {
            return self.remove(rng);
        }
        let kind = KINDS[rng.random_range(0..KINDS.len())];
        let registration = kind.registration();
        let versions = self.api.versions(registration);
        if versions.is_empty() {
            return;
        }
        let version = versions[rng.random_range(0..versions.len())];
        let (namespace, name, object) = values::object(kind, rng);
        let path = api::one(registration, version, &namespace, &name);
        let (what, done) = match rng.random_range(0..10) {
            0 | 1 => ("deleted", self.delete(kind, &path, rng)),
            2 => {
                // It may not be there.
                let _ = self.delete(kind, &path, rng);
                ("made anew", self.apply(kind, &path, version, &object))
            }
            _ => ("applied", self.apply(kind, &path, version, &object)),
        };
        match done {
            Ok(()) => {
                *self.made.entry(kind).or_default() += 1;
                let object = if what == "deleted" { Value::Null } else { object };
                self.history.push(format!("{what} {path} {object}"));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn apply(&self, kind: ObjectKind, path: &str, version: &str, object: &Value) -> Result<(), u16> {
        let of = kind.registration();
        let mut object = object.clone();
        let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
        object["kind"] = of.name.into();
        object["apiVersion"] =
            if of.group.is_empty() { version.into() } else { format!("{}/{version}", of.group).into() };
        match self.api.apply(path, &object) {
            // A field that cannot be changed.
            Err(422) => {
                self.api.delete(&format!("{path}?gracePeriodSeconds=0"))?;
                self.api.apply(path, &object)?;
            }
            other => other?,
        }
        match status {
            Some(status) => self.api.merge(&format!("{path}/status"), &json!({"status": status})),
            None => Ok(()),
        }
    }

    fn delete(&self, kind: ObjectKind, path: &str, rng: &mut StdRng) -> Result<(), u16> {
        match kind {
            // Nobody empties a namespace here, and then lets it go.
            ObjectKind::Namespace => {
                self.api.delete(path)?;
                let name = path.rsplit('/').next().unwrap_or_default();
                let finalized = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []}});
                self.api.ask("PUT", &format!("{path}/finalize"), Some(&finalized), "application/json").map(drop)?;
                self.create_namespace(name, &json!({}))
            }
            // Without a kubelet, a pod that is let go stays for good.
            ObjectKind::Pod if rng.random_bool(0.3) => self.api.delete(path),
            _ => self.api.delete(&format!("{path}?gracePeriodSeconds=0")),
        }
    }

    fn create_namespace(&self, name: &str, labels: &Value) -> Result<(), u16> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.api.apply(&format!("/api/v1/namespaces/{name}"), &object)
    }

    /// A kind goes and takes its objects with it.
    fn remove(&mut self, rng: &mut StdRng) {
        let definition = self.installed.swap_remove(rng.random_range(0..self.installed.len()));
        let (name, path) = place(&definition);
        assert_eq!(self.api.delete(&path), Ok(()), "{name} cannot be removed");
        let is_gone = || self.api.get(&path) == Err(404);
        assert!(until(PATIENCE, is_gone), "{name} is still there");
        self.history.push(format!("removed {name}"));
        self.removed.push(definition);
    }

    /// It comes back, without any.
    fn install(&mut self, rng: &mut StdRng) {
        let definition = self.removed.swap_remove(rng.random_range(0..self.removed.len()));
        let (name, path) = place(&definition);
        assert_eq!(self.api.apply(&path, &definition), Ok(()), "{name} cannot be installed");
        let is_established = |found: Value| {
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|it| it["type"] == "Established" && it["status"] == "True")
        };
        assert!(until(PATIENCE, || self.api.get(&path).is_ok_and(is_established)), "{name} is not served");
        self.history.push(format!("installed {name}"));
        self.installed.push(definition);
    }
}

/// The name and the path of the definition of a kind.
fn place(definition: &Value) -> (String, String) {
    let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    (name, path)
}
