//! What checks look at: the cluster, each of its answers asked for once.

use std::{collections::HashMap, sync::Arc};

use maesh_config::Zone;
use maesh_controller::duties::stanza::{self, There};
use parking_lot::Mutex;
use serde_json::Value;

use super::outcome::Outcome;
use crate::inspect::{Cluster, ClusterError};

/// Objects in one part of a list that may be long.
const PART: &str = "500";
/// Selects what has one of the roles.
const ROLES: &str = "app.kubernetes.io%2Fcomponent%20in%20%28controller%2Cdns%2Cproxy%29";

/// What was read, or why not.
pub type Read = Result<Value, ClusterError>;

/// The cluster's DNS and what it reads, or why it was not found.
pub type ClusterDns = Result<There, stanza::ClusterError>;

/// The cluster, and what was read of it.
pub struct Context {
    /// Where to ask.
    pub cluster: Cluster,
    read: Mutex<HashMap<String, Arc<Read>>>,
    dns: Mutex<Option<Arc<ClusterDns>>>,
}

impl Context {
    /// Nothing was read yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, read: Mutex::default(), dns: Mutex::default() }
    }

    /// Forgets what was read: the cluster may have changed.
    pub fn forget(&mut self) {
        self.read.lock().clear();
        *self.dns.lock() = None;
    }

    /// The cluster's DNS, found from what runs.
    pub async fn cluster_dns(&self) -> Arc<ClusterDns> {
        if let Some(found) = self.dns.lock().as_ref() {
            return found.clone();
        }
        let cluster = stanza::Cluster::new(self.cluster.client());
        let found = match cluster.place().await {
            Ok(place) => cluster.read(place).await,
            Err(error) => Err(error),
        };
        let found = Arc::new(found);
        *self.dns.lock() = Some(found.clone());
        found
    }

    /// The mesh's zones, by what its controller is started with, else those of an installation that says nothing.
    pub async fn zones(&self) -> Vec<Zone> {
        let zones: Vec<Zone> = self.flags("--zone").await.iter().filter_map(|zone| zone.parse().ok()).collect();
        if zones.is_empty() { crate::args::MeshArgs::default().zones } else { zones }
    }

    /// The values with which the mesh's pods are given this flag, each once, in their order.
    pub async fn flags(&self, flag: &str) -> Vec<String> {
        let pods = self.mesh_pods().await;
        let pods = pods.as_ref().as_ref().map(items).unwrap_or_default();
        let said = arguments(pods).filter_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='));
        let mut values: Vec<String> = Vec::new();
        // Every replica says the same ones, in the same order.
        for value in said.filter(|value| !value.is_empty()) {
            if values.iter().all(|known| known != value) {
                values.push(value.to_owned());
            }
        }
        values
    }

    /// Whether one of the mesh's pods is given this flag, which has no value.
    pub async fn has_flag(&self, flag: &str) -> bool {
        let pods = self.mesh_pods().await;
        let pods = pods.as_ref().as_ref().map(items).unwrap_or_default();
        arguments(pods).any(|argument| argument == flag)
    }

    /// `GET` of an object or a list; `right` is what is needed.
    pub async fn get(&self, url: &str, right: &str) -> Arc<Read> {
        if let Some(read) = self.read.lock().get(url) {
            return read.clone();
        }
        let read = Arc::new(self.cluster.get(url, right).await);
        self.read.lock().insert(url.to_owned(), read.clone());
        read
    }

    /// Reads a list that may be long, in parts that are not kept, and hands on each of its objects.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn each(&self, url: &str, right: &str, mut take: impl FnMut(&Value)) -> Result<(), ClusterError> {
        let mut place = String::new();
        loop {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("limit", PART)
                .append_pair("continue", &place)
                .finish();
            let list = self.cluster.get(&format!("{url}?{query}"), right).await?;
            items(&list).iter().for_each(&mut take);
            place = text(&list, "/metadata/continue").to_owned();
            if place.is_empty() {
                return Ok(());
            }
        }
    }

    /// The Deployments or DaemonSets of the mesh's roles.
    pub async fn of_mesh(&self, plural: &str) -> Arc<Read> {
        let url = format!("/apis/apps/v1/namespaces/{}/{plural}?labelSelector={ROLES}", self.namespace());
        self.get(&url, &format!("list {plural}")).await
    }

    /// Namespace of the mesh.
    pub fn namespace(&self) -> &str {
        self.cluster.namespace()
    }

    /// The mesh's pods, those that have ended left out.
    pub async fn mesh_pods(&self) -> Arc<Read> {
        let url =
            format!("/api/v1/namespaces/{}/pods?labelSelector=app.kubernetes.io%2Fname%3Dmaesh", self.namespace());
        self.get(&url, "list pods").await
    }

    /// What the mesh's pods of `role` say at `path` of their admin endpoints, each with the pod's name. Who does not answer
    /// is left out.
    ///
    /// # Errors
    /// When nobody may ask.
    pub async fn answers_of(&self, role_asked: &str, path: &str) -> Result<Vec<(String, Value)>, Outcome> {
        let pods = self.mesh_pods().await;
        let pods = pods.as_ref().as_ref().map_err(Outcome::unread)?;
        let mut told = Vec::new();
        for pod in items(pods).iter().filter(|pod| role(pod) == role_asked && is_alive(pod)) {
            match self.cluster.of_mesh_pod(name(pod), admin_port(pod), path).await {
                Ok(said) => told.push((name(pod).to_owned(), serde_json::from_str(&said).unwrap_or(Value::Null))),
                Err(error) if error.code() == 403 => return Err(Outcome::unread(&error)),
                Err(_) => {}
            }
        }
        Ok(told)
    }
}

/// The arguments of all containers of these pods.
fn arguments(pods: &[Value]) -> impl Iterator<Item = &str> {
    let containers = pods.iter().flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten());
    containers.flat_map(|container| container["args"].as_array().into_iter().flatten()).filter_map(Value::as_str)
}

/// The port of a pod's admin endpoint; the controller's where it says none.
fn admin_port(pod: &Value) -> u16 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let admin = ports.find(|port| port["name"] == "admin").and_then(|port| port["containerPort"].as_u64());
    admin.and_then(|port| u16::try_from(port).ok()).unwrap_or(5381)
}

/// The entries of a list.
pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text inside an object; empty where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The object's name.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// Which role a pod of the mesh has.
pub fn role(pod: &Value) -> &str {
    text(pod, "/metadata/labels/app.kubernetes.io~1component")
}

/// The pod runs, is not being deleted, and its containers are ready.
pub fn is_ready(pod: &Value) -> bool {
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|conditions| conditions.iter().any(ready))
        && text(pod, "/metadata/deletionTimestamp").is_empty()
}

/// The pod has not ended.
pub fn is_alive(pod: &Value) -> bool {
    !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// How many there are of something.
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Names, the first few of them.
pub fn some_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<_> = names.into_iter().collect();
    let mut text = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}
