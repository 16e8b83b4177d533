//! From the objects of a Traefik Mesh to annotations to add: pure.
//!
//! What is to be printed is compiled together with the objects. What the compiler says anything against is not printed.

mod replaced;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use maesh_compiler::{
    compile::{Compiler, Config},
    diagnostic::{Diagnostic, ObjectRef, escaped},
    event::Event,
    kinds::{OLD_PREFIX, Object, PREFIX, Service, TrafficSplit},
};
use maesh_config::{
    ServiceName,
    model::{self, Protocol, Resource},
};

use super::{
    annotations,
    outcome::{Finding, Migration, Verdict, annotation_at},
    patch::ServicePatch,
    targets,
};

/// In the name of every shadow Service of Traefik Mesh: `maesh` in hexadecimal digits, between Service and Namespace.
const SHADOW: &str = "-6d61657368-";

/// Longest value of an annotation that is printed, in bytes: Linux takes 128 KiB for an argument of a program.
const LONGEST: usize = 100 << 10;

/// Translates all of these objects. `unused` are values in them that are not used as they are written, and `default` is what a
/// Service without a traffic type was.
pub fn translate(objects: &[Object], unused: &[Diagnostic], default: Protocol) -> Migration {
    let is_shadow = |object: &&Object| matches!(object, Object::Service(service) if service.meta.name.contains(SHADOW));
    let (shadows, objects): (Vec<&Object>, Vec<&Object>) = objects.iter().partition(is_shadow);
    let mut translator = Translator::new(objects, unused, default);
    translator.annotations();
    translator.splits();
    translator.check();
    let mut migration = translator.finish();
    migration.findings.extend(of_shadows(&shadows));
    migration
}

/// Shadow Services, of which there is one for each Service: they are said once for each namespace.
fn of_shadows(shadows: &[&Object]) -> Vec<Finding> {
    let mut of_namespace: BTreeMap<&str, usize> = BTreeMap::new();
    for shadow in shadows {
        *of_namespace.entry(&shadow.meta().namespace).or_default() += 1;
    }
    let found = of_namespace.into_iter().map(|(namespace, count)| {
        let (object, what) = (ObjectRef::new("Namespace", "", namespace), format!("shadow Services ({count})"));
        Finding::new(object, what, Verdict::NotNeeded, "they belong to Traefik Mesh, and go when it is uninstalled")
    });
    found.collect()
}

/// What the compiler makes of objects.
pub struct Compiled {
    pub services: BTreeMap<ServiceName, model::Service>,
    pub found: Vec<Diagnostic>,
}

/// Compiles objects as in a cluster in which nothing else is.
pub fn compile(objects: impl IntoIterator<Item = Object>, default: Protocol) -> Compiled {
    let mut compiler =
        Compiler::new(Config { default_protocol: default, ports_per_namespace: usize::MAX, ..Config::default() });
    objects.into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    let output = compiler.compile(Instant::now());
    let service = |resource| match resource {
        Resource::Service(service) => Some((service.name.clone(), service)),
        _ => None,
    };
    Compiled { services: output.change.upserts.into_iter().filter_map(service).collect(), found: output.found }
}

/// The object of a Service with further annotations.
pub fn annotated(service: &Service, add: &BTreeMap<String, String>) -> Object {
    let mut all: Vec<(Arc<str>, Arc<str>)> =
        service.annotations.iter().filter(|(key, _)| !add.contains_key(&**key)).cloned().collect();
    all.extend(add.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))));
    all.sort();
    Object::Service(Service { annotations: all.into(), ..service.clone() })
}

struct Translator<'a> {
    objects: Vec<&'a Object>,
    unused: &'a [Diagnostic],
    default: Protocol,
    services: BTreeMap<ServiceName, &'a Service>,
    splits: BTreeMap<ServiceName, Vec<&'a TrafficSplit>>,
    patches: BTreeMap<ServiceName, ServicePatch>,
    /// Splits that became routes.
    replaced: BTreeSet<(&'a str, &'a str)>,
    findings: Vec<Finding>,
}

impl<'a> Translator<'a> {
    fn new(objects: Vec<&'a Object>, unused: &'a [Diagnostic], default: Protocol) -> Self {
        let (mut services, mut splits) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        for object in &objects {
            match *object {
                Object::Service(service) => drop(services.insert(name_of(service), service)),
                Object::TrafficSplit(split) => splits.entry(root(split)).or_default().push(split),
                _ => {}
            }
        }
        let (patches, replaced) = (BTreeMap::new(), BTreeSet::new());
        let findings = unused.iter().map(Finding::not_used).collect();
        Self { objects, unused, default, services, splits, patches, replaced, findings }
    }

    /// Annotations of Services and Namespaces, and the objects that stay.
    fn annotations(&mut self) {
        for object in self.objects.clone() {
            match object {
                Object::Service(service) => {
                    let translated = annotations::of_service(service, self.default);
                    self.findings.extend(translated.findings);
                    for (key, value) in translated.add {
                        let name = key.trim_start_matches(PREFIX);
                        let comment = format!("{key} for mesh.traefik.io/{name}");
                        self.add(service, key, value, comment);
                    }
                }
                Object::Namespace(namespace) => {
                    self.findings.extend(annotations::of_namespace(&namespace.meta, &namespace.annotations));
                }
                Object::HttpRouteGroup(group) => self.stays(targets::of_group(group)),
                Object::TrafficTarget(target) => self.stays(targets::of_target(target)),
                Object::TcpRoute(route) => self.stays(targets::of_route("TCPRoute", &route.meta)),
                Object::UdpRoute(route) => self.stays(targets::of_route("UDPRoute", &route.meta)),
                _ => {}
            }
        }
    }

    /// An object that stays is kept unless some of it is not used, which is said already.
    fn stays(&mut self, finding: Finding) {
        if finding.verdict != Verdict::Kept || !self.is_partly_unused(&finding.object) {
            self.findings.push(finding);
        }
    }

    fn is_partly_unused(&self, object: &ObjectRef) -> bool {
        self.unused.iter().any(|found| found.object == *object)
    }

    fn add(&mut self, service: &Service, key: String, value: String, comment: String) {
        let new = || ServicePatch::new(&service.meta.namespace, &service.meta.name);
        let patch = self.patches.entry(name_of(service)).or_insert_with(new);
        patch.add(key, value);
        patch.comments.push(comment);
    }

    /// Takes back what the compiler says anything against.
    fn check(&mut self) {
        self.check_characters();
        let compiled = compile(self.migrated(), self.default);
        let mut refused = BTreeMap::new();
        for found in compiled.found.iter().filter(|found| &*found.object.kind == "Service") {
            let Some(key) = found.field.as_deref().and_then(annotation_at) else { continue };
            let namespace = found.object.namespace.clone().unwrap_or_default();
            let name = ServiceName::new(namespace, found.object.name.clone());
            let was = self.patches.get_mut(&name).and_then(|patch| patch.take(key));
            match was {
                Some(_) => drop(refused.insert((name, key.to_owned()), Finding::not_used(found))),
                None => self.is_not_used(found, key),
            }
        }
        for ((name, key), why) in refused {
            self.take_back(&name, &key, why);
        }
        self.patches.retain(|_, patch| !patch.metadata.annotations.is_empty());
    }

    /// An annotation of Traefik Mesh that is there and has no effect, or another one than is written, is not kept.
    fn is_not_used(&mut self, found: &Diagnostic, key: &str) {
        let name = key.strip_prefix(PREFIX).or_else(|| key.strip_prefix(OLD_PREFIX)).unwrap_or(key);
        if !annotations::NAMES.contains(&name) {
            return;
        }
        let old = format!("{OLD_PREFIX}{name}");
        let is_about = |it: &Finding| it.object == found.object && (it.what == key || it.what == old);
        let seems_used = |it: &Finding| matches!(it.verdict, Verdict::Kept | Verdict::Translated);
        self.findings.retain(|it| !(is_about(it) && seems_used(it)));
        // What else was found says why, too.
        if !self.findings.iter().any(is_about) {
            self.findings.push(Finding::not_used(found));
        }
    }

    /// Takes back what could command the terminal in which it is printed, or is too long for a command.
    fn check_characters(&mut self) {
        let is_hidden =
            |value: &str| value.len() > LONGEST || value.split('\n').any(|line| matches!(escaped(line), Cow::Owned(_)));
        let mut refused = Vec::new();
        for (name, patch) in &mut self.patches {
            let keys = patch.metadata.annotations.iter().filter(|(_, value)| is_hidden(value));
            let keys: Vec<String> = keys.map(|(key, _)| key.clone()).collect();
            for key in keys {
                patch.take(&key);
                refused.push((name.clone(), key));
            }
        }
        for (name, key) in refused {
            let why = "it is too long for a command, or has characters that cannot be seen, so it is not printed";
            let object = ObjectRef::new("Service", &name.namespace, &name.name);
            self.take_back(&name, &key, Finding::new(object, &*key, Verdict::NotKept, why));
        }
    }

    fn take_back(&mut self, name: &ServiceName, key: &str, why: Finding) {
        if key.rsplit('.').next() != Some("routes") && !key.ends_with("/routes") {
            let old = key.replacen(PREFIX, OLD_PREFIX, 1);
            self.findings.retain(|finding| finding.object != why.object || finding.what != old);
            self.findings.push(Finding { what: old, ..why });
            return;
        }
        // The routes of all ports or none: the splits stay in force for all of them.
        if let Some(patch) = self.patches.get_mut(name) {
            patch.take_all(|key| key.ends_with(".routes") || key.ends_with("/routes"));
        }
        for split in self.splits.get(name).cloned().unwrap_or_default() {
            if self.replaced.remove(&(&*split.meta.namespace, &*split.meta.name)) {
                let is_it =
                    |finding: &Finding| finding.object == about(split) && finding.verdict == Verdict::Translated;
                self.findings.retain(|finding| !is_it(finding));
                let why = "it is read as it is: its matches are more or larger than the annotation routes takes, or cannot be seen";
                self.findings.push(Finding::new(about(split), "", Verdict::Kept, why));
            }
        }
    }

    /// The objects with what is to be printed, and without what that replaces.
    fn migrated(&self) -> Vec<Object> {
        let migrated = self.objects.iter().filter_map(|object| match *object {
            Object::Service(service) if let Some(patch) = self.patches.get(&name_of(service)) => {
                Some(annotated(service, &patch.metadata.annotations))
            }
            Object::TrafficSplit(split) if self.replaced.contains(&(&*split.meta.namespace, &*split.meta.name)) => None,
            object => Some(object.clone()),
        });
        migrated.collect()
    }

    fn finish(self) -> Migration {
        Migration { objects: self.patches.into_values().collect(), findings: self.findings }
    }
}

fn name_of(service: &Service) -> ServiceName {
    ServiceName::new(service.meta.namespace.clone(), service.meta.name.clone())
}

/// The Service whose traffic is split.
fn root(split: &TrafficSplit) -> ServiceName {
    backend(split, &split.service)
}

fn backend(split: &TrafficSplit, name: &Arc<str>) -> ServiceName {
    ServiceName::new(split.meta.namespace.clone(), name.clone())
}

fn about(split: &TrafficSplit) -> ObjectRef {
    ObjectRef::new("TrafficSplit", &split.meta.namespace, &split.meta.name)
}

#[cfg(test)]
mod tests;
