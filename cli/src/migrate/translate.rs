//! From the objects of a Traefik Mesh to annotations to add: pure.
//!
//! What is to be printed is compiled together with the objects. What the compiler says anything against is not printed.

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
    kinds::{Object, PREFIX, Service, TrafficSplit},
};
use maesh_config::{
    ServiceName,
    model::{self, Protocol, Resource},
};

use super::{
    annotations::{self, OF_CALLED},
    outcome::{Finding, Migration, Verdict},
    patch::ServicePatch,
    splits, targets,
};

/// In the name of every shadow Service of Traefik Mesh: `maesh` in hexadecimal digits, between Service and Namespace.
const SHADOW: &str = "-6d61657368-";

/// Longest value of an annotation that is printed, in bytes: Linux takes 128 KiB for an argument of a program.
const LONGEST: usize = 100 << 10;

/// Translates all of these objects. `default` is what a Service without a traffic type was.
pub fn translate(objects: &[Object], default: Protocol) -> Migration {
    let is_shadow = |object: &&Object| matches!(object, Object::Service(service) if service.meta.name.contains(SHADOW));
    let (shadows, objects): (Vec<&Object>, Vec<&Object>) = objects.iter().partition(is_shadow);
    let mut translator = Translator::new(objects, default);
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
    default: Protocol,
    services: BTreeMap<ServiceName, &'a Service>,
    splits: BTreeMap<ServiceName, Vec<&'a TrafficSplit>>,
    patches: BTreeMap<ServiceName, ServicePatch>,
    /// Splits that became routes.
    replaced: BTreeSet<(&'a str, &'a str)>,
    findings: Vec<Finding>,
}

impl<'a> Translator<'a> {
    fn new(objects: Vec<&'a Object>, default: Protocol) -> Self {
        let (mut services, mut splits) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        for object in &objects {
            match *object {
                Object::Service(service) => drop(services.insert(name_of(service), service)),
                Object::TrafficSplit(split) => splits.entry(root(split)).or_default().push(split),
                _ => {}
            }
        }
        let (patches, replaced, findings) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        Self { objects, default, services, splits, patches, replaced, findings }
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
                Object::HttpRouteGroup(group) => self.findings.push(targets::of_group(group)),
                Object::TrafficTarget(target) => self.findings.push(targets::of_target(target)),
                Object::TcpRoute(route) => self.findings.push(targets::of_route("TCPRoute", &route.meta)),
                Object::UdpRoute(route) => self.findings.push(targets::of_route("UDPRoute", &route.meta)),
                _ => {}
            }
        }
    }

    fn add(&mut self, service: &Service, key: String, value: String, comment: String) {
        let new = || ServicePatch::new(&service.meta.namespace, &service.meta.name);
        let patch = self.patches.entry(name_of(service)).or_insert_with(new);
        patch.add(key, value);
        patch.comments.push(comment);
    }

    /// Writes TrafficSplits as routes, all of a Service together, where that means the same.
    fn splits(&mut self) {
        let compiled = compile(self.objects.iter().copied().cloned(), self.default);
        let in_cycles = self.in_cycles();
        for (root, splits) in self.splits.clone() {
            for split in &splits {
                let differs = self.differs(split, &in_cycles);
                self.findings.extend(differs.into_iter().map(|finding| Finding { object: about(split), ..finding }));
            }
            match self.routes(&root, &splits, &compiled) {
                Ok((service, routes)) => self.replace(service, &splits, routes),
                Err(why) => {
                    let said = |split: &&TrafficSplit| {
                        Finding::new(about(split), "", Verdict::Kept, format!("it is read as it is: {why}"))
                    };
                    self.findings.extend(splits.iter().map(said));
                }
            }
        }
    }

    /// The annotations that say what these splits say.
    fn routes(
        &self,
        root: &ServiceName,
        splits: &[&TrafficSplit],
        compiled: &Compiled,
    ) -> Result<(&'a Service, BTreeMap<String, String>), String> {
        let service = *self.services.get(root).ok_or_else(|| format!("Service {root} is not among the objects"))?;
        let is_routes =
            |key: &str| key.strip_prefix(PREFIX).is_some_and(|name| name.rsplit('.').next() == Some("routes"));
        if service.annotations.iter().any(|(key, _)| is_routes(key)) {
            return Err(format!("Service {root} has the annotation routes already, which comes before it"));
        }
        let said = |found: &&Diagnostic| splits.iter().any(|split| about(split) == found.object);
        if let Some(found) = compiled.found.iter().find(said) {
            let own = found.message.split_once(": ").map_or(&*found.message, |(_, text)| text);
            return Err(own.to_owned());
        }
        let compiled = compiled.services.get(root).ok_or_else(|| format!("Service {root} is not of the mesh"))?;
        Ok((service, splits::annotations(&compiled.ports).map_err(|why| why.to_string())?))
    }

    fn replace(&mut self, service: &'a Service, splits: &[&'a TrafficSplit], routes: BTreeMap<String, String>) {
        let keys = routes.keys().cloned().collect::<Vec<_>>().join(", ");
        for (key, lines) in routes {
            let names: Vec<_> = splits.iter().map(|split| &*split.meta.name).collect();
            let comment = format!("{key} for TrafficSplit {}", names.join(" and "));
            self.add(service, key, lines, comment);
        }
        for split in splits {
            let meta = &split.meta;
            let why = format!(
                "now {keys} of Service {}; endpoints see the host that the caller sent, not that of the backend",
                service.meta.name
            );
            let next = format!("once it is applied: kubectl -n {} delete trafficsplit {}", meta.namespace, meta.name);
            self.findings.push(Finding::new(about(split), "", Verdict::Translated, why).next(next));
            self.replaced.insert((&meta.namespace, &meta.name));
        }
    }

    /// In what this split meant something else to Traefik Mesh.
    fn differs(&self, split: &TrafficSplit, in_cycles: &BTreeSet<ServiceName>) -> Vec<Finding> {
        let (mut found, object) = (Vec::new(), about(split));
        let backends = || split.backends.iter().filter(|it| it.weight > 0).map(|it| backend(split, &it.service));
        let say = |what: &str, why: String| Finding::new(object.clone(), what, Verdict::NotKept, why);
        if backends().any(|it| in_cycles.contains(&it)) {
            let why =
                "its backends lead back to where they came from, so Traefik Mesh did not apply it; here it is applied";
            found.push(say("backends", why.to_owned()).next("delete it, or correct the backends"));
        } else if let Some(nested) = backends().find(|it| self.splits.contains_key(it)) {
            let why =
                format!("the split of backend {} applied to its share; here its own endpoints get it", nested.name);
            found.push(say("backends", why).next("name the backends of the other split, with their weights"));
        }
        if split.backends.iter().all(|it| it.weight == 0) {
            let why = "no weight is above 0: Traefik Mesh answered 500, this mesh answers 503";
            found.push(say("backends", why.to_owned()).next("give a backend a weight"));
        }
        for it in backends().filter_map(|it| self.services.get(&it)) {
            let is_called = |key: &str| OF_CALLED.iter().any(|name| key.rsplit('/').next() == Some(name));
            let of_called: Vec<_> =
                it.annotations.iter().filter(|(key, _)| is_called(key)).map(|(key, _)| &**key).collect();
            if !of_called.is_empty() && name_of(it) != root(split) {
                let why = format!(
                    "{} of backend {} applied to its share; here those of the Service that was called apply",
                    of_called.join(" and "),
                    it.meta.name
                );
                found.push(say("backends", why).next(format!("set them on Service {}", split.service)));
            }
        }
        found
    }

    /// Services from which splits lead into a circle.
    fn in_cycles(&self) -> BTreeSet<ServiceName> {
        let mut left: BTreeSet<ServiceName> = self.splits.keys().cloned().collect();
        loop {
            let leads = |name: &&ServiceName| {
                let splits = self.splits.get(*name).into_iter().flatten();
                splits
                    .into_iter()
                    .any(|split| split.backends.iter().any(|it| left.contains(&backend(split, &it.service))))
            };
            let next: BTreeSet<_> = left.iter().filter(leads).cloned().collect();
            if next.len() == left.len() {
                return left;
            }
            left = next;
        }
    }

    /// Takes back what the compiler says anything against.
    fn check(&mut self) {
        self.check_characters();
        let compiled = compile(self.migrated(), self.default);
        let mut refused = BTreeMap::new();
        for found in compiled.found.iter().filter(|found| &*found.object.kind == "Service") {
            let Some(key) = found.field.as_deref().and_then(annotation) else { continue };
            let namespace = found.object.namespace.clone().unwrap_or_default();
            let name = ServiceName::new(namespace, found.object.name.clone());
            let was = self.patches.get_mut(&name).and_then(|patch| patch.take(key));
            if was.is_some() {
                refused.insert((name, key.to_owned()), &*found.message);
            }
        }
        for ((name, key), why) in refused {
            self.take_back(&name, &key, why);
        }
        self.patches.retain(|_, patch| !patch.metadata.annotations.is_empty());
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
            self.take_back(
                &name,
                &key,
                "it is too long for a command, or has characters that cannot be seen, so it is not printed",
            );
        }
    }

    fn take_back(&mut self, name: &ServiceName, key: &str, why: &str) {
        let why = why.split_once(": ").map_or(why, |(_, text)| text);
        if key.rsplit('.').next() != Some("routes") && !key.ends_with("/routes") {
            let object = ObjectRef::new("Service", &name.namespace, &name.name);
            let old = key.replacen(PREFIX, maesh_compiler::kinds::OLD_PREFIX, 1);
            self.findings.retain(|finding| finding.object != object || finding.what != old);
            self.findings.push(Finding::new(object, old, Verdict::NotKept, why));
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

/// The key of the annotation at this path.
fn annotation(field: &str) -> Option<&str> {
    field.strip_prefix("metadata.annotations[")?.strip_suffix(']')
}

#[cfg(test)]
mod tests;
