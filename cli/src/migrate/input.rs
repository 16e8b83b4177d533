//! What is translated: the objects of a cluster, or of files as `maesh dev` reads them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use maesh_compiler::{
    diagnostic::{Diagnostic, ObjectRef, Reason, Severity},
    kinds::{Object, ObjectKind, ReadContext, Registration},
};
use maesh_controller::source::manifests::{self, STANDARD_INPUT};
use serde_json::Value;

use super::outcome::{Finding, own_text};
use crate::{
    args::MigrateArgs,
    check::items,
    given,
    inspect::{self, Cluster, ClusterError},
};

/// The kinds that are looked at.
const KINDS: [ObjectKind; 7] = [
    ObjectKind::Namespace,
    ObjectKind::Service,
    ObjectKind::HttpRouteGroup,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
    ObjectKind::TrafficSplit,
    ObjectKind::TrafficTarget,
];

/// What was read.
#[derive(Debug, Default)]
pub struct Input {
    pub objects: Vec<Object>,
    /// Objects that are there and cannot be used.
    pub refused: Vec<Finding>,
    /// Values of the objects that are not used as they are written.
    pub unused: Vec<Diagnostic>,
    /// What was skipped, or read in another way than it is written.
    pub warnings: Vec<String>,
}

impl Input {
    fn note(&mut self, found: &Diagnostic) {
        match found.severity {
            Severity::Warning if is_misspelt(found) => self.refused.push(Finding::cannot_be_read(found)),
            Severity::Warning if is_unused_value(found) => self.unused.push(in_namespace(found.clone())),
            Severity::Warning => self.warnings.push(found.message.to_string()),
            Severity::Error => self.refused.push(Finding::not_used(&in_namespace(found.clone()))),
        }
    }

    /// Whether an object of this namespace is there, though it may be of no use; an object without one may be of any.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        let has = |object: &Object| match object.kind() {
            ObjectKind::Namespace => *object.meta().name == *namespace,
            _ => *object.meta().namespace == *namespace,
        };
        let refused = self.refused.iter().map(|finding| &finding.object);
        let mut other = refused.chain(self.unused.iter().map(|found| &found.object));
        self.objects.iter().any(has) || other.any(|object| object.namespace.as_deref().is_none_or(|it| it == namespace))
    }
}

/// Whether an object of a kind that is not read was meant to be one that is looked at.
fn is_misspelt(found: &Diagnostic) -> bool {
    let text = &found.message;
    let meant = || KINDS.iter().any(|kind| text.ends_with(&format!("Did you mean {}?", kind.as_str())));
    // Kinds of Gateway API have names that are like those of SMI.
    let is_smi = text.contains(".smi-spec.io/") && !text.contains("metrics.smi-spec.io/");
    found.reason == Reason::UnknownKind && (is_smi || meant() && !text.contains(".k8s.io/"))
}

fn is_looked_at(found: &Diagnostic) -> bool {
    KINDS.iter().any(|kind| kind.as_str() == &*found.object.kind)
}

/// Whether an object that is looked at means less than what is written. What is said of metadata is how it has to be written.
fn is_unused_value(found: &Diagnostic) -> bool {
    is_looked_at(found) && found.field.as_deref().is_some_and(|field| !field.starts_with("metadata."))
}

/// The object by its whole name: a file may leave the namespace out.
fn in_namespace(mut found: Diagnostic) -> Diagnostic {
    let is_namespace = &*found.object.kind == ObjectKind::Namespace.as_str();
    if found.object.namespace.is_none() && is_looked_at(&found) && !is_namespace {
        let text = own_text(&found).to_owned();
        found.object.namespace = Some("default".into());
        found.message = format!("{}: {text}", found.object).into();
    }
    found
}

/// Reads files and folders.
///
/// # Errors
/// A path that is not there, or a file that cannot be read: what the rest means may depend on it.
pub fn of_files(paths: Vec<PathBuf>) -> anyhow::Result<Input> {
    let missing = |path: &&PathBuf| *path != Path::new(STANDARD_INPUT) && !path.exists();
    if let Some(path) = paths.iter().find(missing) {
        bail!("{} does not exist; name a file or folder of manifests, or - for standard input", path.display());
    }
    let reading = manifests::read_once(paths.clone(), ReadContext::default()).context("reading the manifests")?;
    given::ensure_something(&paths, &reading)?;
    let (mut input, mut broken) = (Input::default(), Vec::new());
    for found in &reading.problems {
        match (found.severity, &*found.object.kind) {
            (Severity::Error, "File") if found.reason != Reason::InvalidObject => {
                broken.push(found.message.to_string());
            }
            _ => input.note(found),
        }
    }
    anyhow::ensure!(broken.is_empty(), "{}", broken.join("\n"));
    let objects: BTreeMap<_, _> = reading.objects.into_iter().collect();
    input.objects.extend(objects.into_values().map(|object| (*object).clone()));
    Ok(input)
}

/// Reads a cluster, or one namespace of it.
///
/// # Errors
/// When it does not answer, or what is needed may not be read.
pub async fn of_cluster(args: &MigrateArgs) -> anyhow::Result<Input> {
    let cluster = inspect::open(&args.cluster()).await?;
    let mut input = Input::default();
    for kind in KINDS {
        let kind = kind.registration();
        match list(&cluster, kind, args.namespace.as_deref()).await {
            Ok(objects) => objects.into_iter().for_each(|object| input.take(kind, object)),
            // Of a Namespace only annotations that had no effect matter.
            Err(error) if kind.kind == ObjectKind::Namespace && error.code() == 403 => {
                input.warnings.push(format!("annotations of Namespaces were not looked at: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(input)
}

/// All objects of a kind, in the best version that the cluster serves; none where it serves none.
async fn list(cluster: &Cluster, kind: &Registration, namespace: Option<&str>) -> Result<Vec<Value>, ClusterError> {
    for version in kind.versions {
        let group =
            if kind.group.is_empty() { format!("/api/{version}") } else { format!("/apis/{}/{version}", kind.group) };
        let (url, is_one) = match namespace {
            Some(namespace) if kind.kind == ObjectKind::Namespace => (format!("{group}/namespaces/{namespace}"), true),
            Some(namespace) => (format!("{group}/namespaces/{namespace}/{}", kind.plural), false),
            None => (format!("{group}/{}", kind.plural), false),
        };
        let answer = match cluster.get(&url, &format!("list {}", kind.plural)).await {
            Ok(answer) => answer,
            Err(error) if error.code() == 404 && !kind.always_served => continue,
            Err(error) => return Err(error),
        };
        let mut objects = if is_one { vec![answer] } else { items(&answer).to_vec() };
        let api_version =
            if kind.group.is_empty() { (*version).to_owned() } else { format!("{}/{version}", kind.group) };
        // What each entry of a list is, the list says.
        for fields in objects.iter_mut().filter_map(Value::as_object_mut) {
            fields.entry("apiVersion").or_insert_with(|| api_version.clone().into());
        }
        return Ok(objects);
    }
    Ok(Vec::new())
}

impl Input {
    fn take(&mut self, kind: &Registration, object: Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let about = ObjectRef::new(kind.name, text("/metadata/namespace"), text("/metadata/name"));
        match kind.read(&object, &ReadContext::default()) {
            Ok((object, bad)) => {
                bad.iter().for_each(|bad| self.note(&bad.diagnostic(about.clone(), false)));
                self.objects.push(object);
            }
            Err(bad) => self.note(&bad.diagnostic(about, true)),
        }
    }
}
