//! What becomes of TrafficSplits: routes, where these say just the same and all of the split is used as it is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use maesh_compiler::{
    diagnostic::{Diagnostic, ObjectRef, Reason},
    kinds::{Object, PREFIX, Service, TrafficSplit},
};
use maesh_config::ServiceName;

use super::{Compiled, Translator, about, backend, compile, name_of, root};
use crate::migrate::{
    annotations::OF_CALLED,
    outcome::{Finding, Verdict},
    splits,
};

impl<'a> Translator<'a> {
    /// Writes TrafficSplits as routes, all of a Service together, where that means the same.
    pub(super) fn splits(&mut self) {
        let compiled = compile(self.objects.iter().copied().cloned(), self.default);
        let in_cycles = self.in_cycles();
        for (root, splits) in self.splits.clone() {
            if let Some(service) = self.said_by_routes(&root, &splits) {
                self.findings.extend(splits.iter().map(|split| not_needed(split, service)));
                continue;
            }
            for split in splits.iter().filter(|split| !is_idle(split, &compiled)) {
                self.findings.extend(self.differs(split, &in_cycles));
            }
            let (bad, good): (Vec<&TrafficSplit>, Vec<&TrafficSplit>) =
                splits.iter().copied().partition(|split| self.is_bad(split, &compiled));
            let Some(first) = bad.first() else {
                match self.routes(&root, &compiled) {
                    Ok((service, routes)) => self.replace(service, &splits, routes),
                    Err(why) if compiled.services.contains_key(&root) => {
                        self.findings.extend(splits.iter().map(|split| as_it_is(split, &why)));
                    }
                    Err(why) => {
                        let unused =
                            |split: &&TrafficSplit| Finding::new(about(split), "", Verdict::NotKept, why.clone());
                        self.findings.extend(splits.iter().map(unused));
                    }
                }
                continue;
            };
            // A Service's splits become routes together or not at all.
            let why = format!("TrafficSplit {} of the same Service cannot be translated", first.meta.name);
            self.findings.extend(good.iter().map(|split| as_it_is(split, &why)));
            for split in bad {
                self.findings.extend(self.faults(split, &compiled));
            }
        }
    }

    /// Whether some of this split, or of a group that it names, is not used as it is written.
    fn is_bad(&self, split: &TrafficSplit, compiled: &Compiled) -> bool {
        let object = about(split);
        self.is_partly_unused(&object)
            || self.unused_group(split).is_some()
            || compiled.found.iter().any(|found| found.object == object)
    }

    /// What is wrong with it, besides what was found as it was read.
    fn faults(&self, split: &TrafficSplit, compiled: &Compiled) -> Vec<Finding> {
        let object = about(split);
        // What differs with the Traefik Mesh is said by `differs`.
        let is_said = |found: &Diagnostic| found.field.as_deref() == Some("spec.backends") && is_without_weight(split);
        let found = compiled.found.iter().filter(|found| found.object == object && !is_said(found));
        let group = self.unused_group(split).map(|name| {
            let why = format!("some of HTTPRouteGroup {name} is not used");
            Finding::new(object.clone(), "spec.matches", Verdict::NotKept, why).next(format!("correct {name}"))
        });
        found.map(Finding::not_used).chain(group).collect()
    }

    /// The first group of a split of which some is not used.
    fn unused_group<'s>(&self, split: &'s TrafficSplit) -> Option<&'s str> {
        let is_unused =
            |name: &&Arc<str>| self.is_partly_unused(&ObjectRef::new("HTTPRouteGroup", &split.meta.namespace, name));
        split.groups.iter().find(is_unused).map(|name| &**name)
    }

    /// The Service whose annotation says what these splits say, as after an earlier translation.
    fn said_by_routes(&self, root: &ServiceName, splits: &[&TrafficSplit]) -> Option<&'a Service> {
        let service = *self.services.get(root)?;
        let written: BTreeMap<String, String> = service
            .annotations
            .iter()
            .filter(|(key, _)| is_routes(key))
            .map(|(key, text)| (key.to_string(), text.to_string()))
            .collect();
        if written.is_empty() {
            return None;
        }
        let plain = service.annotations.iter().filter(|(key, _)| !is_routes(key)).cloned().collect();
        let plain = Object::Service(Service { annotations: plain, ..service.clone() });
        let is_it = |object: &&Object| matches!(object, Object::Service(other) if name_of(other) == *root);
        let others = self.objects.iter().copied().filter(|object| !is_it(object)).cloned();
        let compiled = compile(others.chain([plain]), self.default);
        let ports = &compiled.services.get(root)?.ports;
        let is_same = !splits.iter().any(|split| self.is_bad(split, &compiled))
            && splits::annotations(ports).is_ok_and(|routes| routes == written);
        is_same.then_some(service)
    }

    /// The annotations that say what the splits of this Service say.
    fn routes(
        &self,
        root: &ServiceName,
        compiled: &Compiled,
    ) -> Result<(&'a Service, BTreeMap<String, String>), String> {
        let service = *self.services.get(root).ok_or_else(|| format!("Service {root} is not among the objects"))?;
        if service.annotations.iter().any(|(key, _)| is_routes(key)) {
            return Err(format!("Service {root} has the annotation routes already, of which nothing is used"));
        }
        let compiled = compiled
            .services
            .get(root)
            .ok_or_else(|| format!("Service {root} is not of the mesh, so the split is not used"))?;
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
            let why = format!(
                "now {keys} of Service {}; endpoints see the host that the caller sent, not that of the backend",
                service.meta.name
            );
            let next = format!("once it is applied: {}", delete(split));
            self.findings.push(Finding::new(about(split), "", Verdict::Translated, why).next(next));
            self.replaced.insert((&split.meta.namespace, &split.meta.name));
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
        if is_without_weight(split) {
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
}

/// Whether the mesh does not use it, so that there is nothing to compare.
fn is_idle(split: &TrafficSplit, compiled: &Compiled) -> bool {
    let says_so = |found: &Diagnostic| matches!(found.reason, Reason::SplitNotUsed | Reason::Shadowed);
    compiled.found.iter().any(|found| found.object == about(split) && says_so(found))
}

/// Whether no backend of it gets anything.
fn is_without_weight(split: &TrafficSplit) -> bool {
    split.backends.iter().all(|it| it.weight == 0)
}

/// Whether this is the key of our routes, for all ports or for one.
fn is_routes(key: &str) -> bool {
    key.strip_prefix(PREFIX).is_some_and(|name| name.rsplit('.').next() == Some("routes"))
}

fn as_it_is(split: &TrafficSplit, why: &str) -> Finding {
    Finding::new(about(split), "", Verdict::Kept, format!("it is read as it is: {why}"))
}

fn not_needed(split: &TrafficSplit, service: &Service) -> Finding {
    let why = format!("the annotation routes of Service {} says the same", service.meta.name);
    Finding::new(about(split), "", Verdict::NotNeeded, why).next(delete(split))
}

fn delete(split: &TrafficSplit) -> String {
    format!("kubectl -n {} delete trafficsplit {}", split.meta.namespace, split.meta.name)
}
