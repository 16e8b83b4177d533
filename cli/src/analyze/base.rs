//! The objects of a cluster, over which manifests are put.

use std::{collections::BTreeSet, sync::Arc};

use maesh_compiler::{
    compile::Compiler,
    event::Event,
    kinds::{Object, ObjectId, ObjectKind, ReadContext, Registration},
};
use maesh_config::ServiceName;
use maesh_controller::source::manifests::Reading;
use serde_json::Value;

use crate::{
    check::items,
    inspect::{Cluster, ClusterError},
};

/// What a controller watches, but for ConfigMaps, which are read one by one.
const KINDS: [ObjectKind; 10] = [
    ObjectKind::Namespace,
    ObjectKind::Node,
    ObjectKind::Pod,
    ObjectKind::Service,
    ObjectKind::EndpointSlice,
    ObjectKind::HttpRouteGroup,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
    ObjectKind::TrafficSplit,
    ObjectKind::TrafficTarget,
];

/// What a cluster has.
pub struct Base {
    cluster: Cluster,
    door: ReadContext,
    objects: Vec<(ObjectKind, Vec<Object>)>,
    /// ConfigMaps that the compiler was told of.
    told: BTreeSet<ServiceName>,
    /// What could not be read, and what that means.
    notes: Vec<String>,
}

/// Reads the objects of every kind. What may not be read counts as absent, with a note.
///
/// # Errors
/// When the API server does not answer, or does not know who asks.
pub async fn read(cluster: Cluster, door: ReadContext) -> Result<Base, ClusterError> {
    let mut base = Base { cluster, door, objects: Vec::new(), told: BTreeSet::new(), notes: Vec::new() };
    for kind in KINDS {
        let values = base.list(kind.registration()).await?;
        // What cannot be read of the cluster's own objects is for `maesh check` to say.
        let read = |value: &Value| kind.registration().read(value, &base.door).ok();
        let objects = values.iter().filter_map(read).map(|(object, _)| object).collect();
        base.objects.push((kind, objects));
    }
    Ok(base)
}

impl Base {
    /// The objects of a kind, in the first version that is served.
    async fn list(&mut self, kind: &Registration) -> Result<Vec<Value>, ClusterError> {
        for version in kind.versions {
            let right = format!("list {}", kind.plural);
            match self.cluster.get(&url(kind, version), &right).await {
                Ok(list) => return Ok(items(&list).to_vec()),
                Err(error) if error.code() == 404 => {}
                Err(error) if error.code() == 403 => {
                    self.notes
                        .push(format!("{} of the cluster were not read, and count as absent: {error}", kind.plural));
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    /// Takes out what was read.
    pub fn take_objects(&mut self) -> Vec<(ObjectKind, Vec<Object>)> {
        std::mem::take(&mut self.objects)
    }

    /// Tells the compiler of the ConfigMaps that Services name: those in manifests, else those of the cluster.
    pub async fn give_config_maps(&mut self, compiler: &mut Compiler, reading: &Reading) {
        let Some(wanted) = compiler.take_wanted_config_maps() else { return };
        for name in wanted {
            if !self.told.insert(name.clone()) {
                continue;
            }
            let id = ObjectId::new(ObjectKind::ConfigMap, name.namespace.clone(), name.name.clone());
            let event = match reading.objects.get(&id) {
                Some(object) => Event::Apply((**object).clone()),
                None => self.config_map(id).await,
            };
            compiler.take(event);
        }
    }

    async fn config_map(&self, id: ObjectId) -> Event {
        let url = format!("/api/v1/namespaces/{}/configmaps/{}", id.namespace, id.name);
        match self.cluster.get(&url, "get configmaps").await {
            Ok(value) => match ObjectKind::ConfigMap.registration().read(&value, &self.door) {
                Ok((object, _)) => Event::Apply(object),
                Err(bad) => Event::Unreadable(id, Arc::from(bad.to_string())),
            },
            Err(error) if error.code() == 404 => Event::Delete(id),
            Err(error) => Event::Unreadable(id, Arc::from(error.to_string())),
        }
    }

    /// What could not be read.
    pub fn into_notes(self) -> Vec<String> {
        self.notes
    }
}

fn url(kind: &Registration, version: &str) -> String {
    match kind.group {
        "" => format!("/api/{version}/{}", kind.plural),
        group => format!("/apis/{group}/{version}/{}", kind.plural),
    }
}
