//! What the objects say that are there, compiled from nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Instant,
};

use maesh_compiler::{
    compile::{Compiler, Config, ConnectedProxy, Output, TableEntry},
    diagnostic::{Diagnostic, ObjectRef},
    event::Event,
    kinds::{ObjectKind, ReadContext, Registration},
};
use maesh_config::{Key, Kind, Resource, ServiceName};
use serde_json::Value;

use super::api::{self, Api};
use crate::kubernetes::Watching;

/// Everything that is said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    resources: BTreeMap<Key, Resource>,
    table: BTreeMap<ServiceName, TableEntry>,
    diagnostics: BTreeSet<Diagnostic>,
}

impl Said {
    /// By a controller, now.
    pub(crate) fn by(mesh: &Watching) -> Self {
        Self {
            resources: mesh.kept.0.lock().resources.clone(),
            table: mesh.state.table().into_iter().map(|entry| (entry.service.clone(), entry)).collect(),
            diagnostics: mesh.state.diagnostics().into_iter().collect(),
        }
    }

    pub(crate) fn by_kind(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        self.resources.keys().for_each(|key| *counts.entry(key.kind).or_default() += 1);
        counts
    }

    fn add(&mut self, output: Output) {
        for key in &output.change.removed {
            self.resources.remove(key);
        }
        self.resources.extend(output.change.upserts.into_iter().map(|resource| (resource.key(), resource)));
        self.table.retain(|service, _| !output.removed.contains(service));
        self.table.extend(output.services.into_iter().map(|entry| (entry.service.clone(), entry)));
        self.diagnostics.retain(|diagnostic| !output.cleared.contains(diagnostic));
        self.diagnostics.extend(output.found);
    }

    /// What is here and not in `want`, and the other way round.
    pub(crate) fn differences(&self, want: &Self) -> String {
        let mut text = String::new();
        difference(&mut text, "resource", &self.resources, &want.resources);
        difference(&mut text, "entry", &self.table, &want.table);
        let set = |said: &Self| said.diagnostics.iter().map(|it| (it.clone(), ())).collect();
        difference(&mut text, "diagnostic", &set(self), &set(want));
        text
    }
}

fn difference<K, V>(text: &mut String, what: &str, got: &BTreeMap<K, V>, want: &BTreeMap<K, V>)
where
    K: Ord + std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
{
    let keys: BTreeSet<_> = got.keys().chain(want.keys()).collect();
    for key in keys.into_iter().filter(|key| got.get(key) != want.get(key)) {
        let _ = writeln!(text, "{what} {key:?}\n  said: {:?}\n  want: {:?}", got.get(key), want.get(key));
    }
}

/// What the objects of the API server say, with these proxies.
pub(crate) fn compiled(api: &Api, config: &Config, proxies: &[ConnectedProxy]) -> Said {
    let mut compiler = Compiler::new(Config { config_maps_on_demand: false, ..config.clone() });
    let door = compiler.door();
    let mut problems = Vec::new();
    // In another order than they come in when all are listed.
    for kind in ObjectKind::ALL.into_iter().rev() {
        for object in listed(api, kind.registration()) {
            let (event, found) = read(kind, &object, &door);
            event.into_iter().for_each(|event| compiler.take(event));
            problems.extend(found);
        }
    }
    compiler.take(Event::Problems(problems));
    compiler.proxies(proxies.to_vec());
    compiler.complete_proxies();
    let (mut said, mut now) = (Said::default(), Instant::now());
    said.add(compiler.compile(now));
    while let Some(due) = compiler.due() {
        now = now.max(due);
        said.add(compiler.compile(now));
    }
    said
}

/// The objects of a kind, in the best version, as far as the controller asks for them.
fn listed(api: &Api, of: &Registration) -> Vec<Value> {
    // Nothing is needed of ServiceAccounts in a cluster.
    if of.kind == ObjectKind::ServiceAccount {
        return Vec::new();
    }
    let Some(version) = api.versions(of).first().copied() else { return Vec::new() };
    let selector = match of.kind {
        ObjectKind::Pod => "?fieldSelector=status.phase!%3DSucceeded,status.phase!%3DFailed",
        ObjectKind::EndpointSlice => "?labelSelector=kubernetes.io/service-name",
        _ => "",
    };
    let list = api.get(&(api::all(of, version) + selector)).unwrap_or_default();
    let mut items = list["items"].as_array().cloned().unwrap_or_default();
    for item in &mut items {
        item["kind"] = of.name.into();
        item["apiVersion"] = list["apiVersion"].clone();
    }
    items
}

/// What an object says, if it can be read, and what is wrong with it.
fn read(kind: ObjectKind, object: &Value, door: &ReadContext) -> (Option<Event>, Vec<Diagnostic>) {
    let registration = kind.registration();
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let reference = || ObjectRef::new(registration.name, text("namespace"), text("name"));
    match registration.read(object, door) {
        Ok((object, values)) => {
            let found = values.iter().map(|value| value.diagnostic(reference(), false));
            (Some(Event::Apply(object)), found.collect())
        }
        Err(error) => (None, vec![error.diagnostic(reference(), true)]),
    }
}
