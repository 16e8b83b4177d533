//! The stanza in a cluster: reads what the cluster's DNS reads, and writes to it.
//!
//! A write changes one key of a ConfigMap, and only while the ConfigMap is as it was read. Nothing else of the cluster's
//! DNS is ever touched: no pod, no annotation, no Deployment.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use maesh_config::Zone;
use serde_json::{Map, Value, json};

use super::{
    Change, MapName, Maps, Place, Refusal, Report, Unplaced,
    place::{self, SYSTEM},
    plan,
};
use crate::leader::{Leadership, NotLeader};

/// Who wrote, in managed fields.
const MANAGER: &str = "maesh-stanza";
/// Marks a ConfigMap that was not there before us, and goes with us.
const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "maesh");
/// The pods of NodeLocal DNSCache.
const NODE_LOCAL: &str = "k8s-app=node-local-dns";

/// What the stanza leads to.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// The mesh's namespace.
    pub namespace: String,
    /// The Service of the mesh's dns.
    pub service: String,
    /// The mesh's zones.
    pub zones: Vec<Zone>,
}

/// Who may write.
#[derive(Clone, Debug)]
pub enum Right {
    /// The replica that leads, for as long as it does.
    Leader(Leadership),
    /// A person, by a command.
    Person,
}

/// Why something was not read or written; another try may do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API server refuses for want of rights.
    #[error("{what}: {message}. {next}")]
    Forbidden {
        /// What was wanted.
        what: String,
        /// The server's words.
        message: String,
        /// What to do.
        next: String,
    },
    /// The API server cannot be asked, or refuses for another reason.
    #[error("{what}: {source}")]
    Api {
        /// What was wanted.
        what: String,
        /// What came of it.
        source: Box<kube::Error>,
    },
    /// Somebody else wrote at the same time.
    #[error("{0} was changed by another at the same moment. Try again")]
    Conflict(MapName),
    /// The cluster's DNS was not found.
    #[error(transparent)]
    Unplaced(#[from] Unplaced),
    /// What the cluster's DNS reads is not understood.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// Another replica leads.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Nothing to lead to.
    #[error("Service {namespace}/{name} of the mesh's dns has no address. Is the mesh installed there (--namespace)?")]
    NoService {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// The cluster's DNS, and what it reads, at one moment.
#[derive(Clone, Debug)]
pub struct There {
    /// What it is.
    pub place: Place,
    maps: BTreeMap<MapName, Option<ConfigMap>>,
    texts: Maps,
}

impl There {
    /// How it stands to the mesh's zones leading to `forward`.
    ///
    /// # Errors
    /// If what it reads is not understood.
    pub fn report(&self, zones: &[Zone], forward: IpAddr) -> Result<Report, Refusal> {
        plan::report(&self.place, &self.texts, zones, forward)
    }

    /// What to write so that the mesh's zones lead to `forward`.
    ///
    /// # Errors
    /// If what it reads is not understood.
    pub fn additions(&self, zones: &[Zone], forward: IpAddr) -> Result<Vec<Change>, Refusal> {
        plan::additions(&self.place, &self.texts, zones, forward)
    }

    /// What to write so that nothing of the mesh's is left.
    ///
    /// # Errors
    /// If what it reads is not understood.
    pub fn removals(&self, zones: &[Zone], forward: Option<IpAddr>) -> Result<Vec<Change>, Refusal> {
        plan::removals(&self.place, &self.texts, zones, forward)
    }

    /// The uid of a ConfigMap that was read.
    pub(super) fn uid(&self, map: &MapName) -> Option<&str> {
        self.maps.get(map)?.as_ref()?.metadata.uid.as_deref()
    }
}

/// The cluster, by its API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster of `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Finds the cluster's DNS.
    ///
    /// # Errors
    /// If it is none that can be served, or the API server does not say.
    pub async fn place(&self) -> Result<Place, ClusterError> {
        let services = self.services().await?;
        let (service, address) = place::service(&services)?;
        let name = format!("{SYSTEM}/{}", service.metadata.name.as_deref().unwrap_or_default());
        let pods = self.pods_behind(service).await?;
        let caches = self.list::<Pod>(SYSTEM, &ListParams::default().labels(NODE_LOCAL), "pods").await?;
        Ok(place::place(&name, address, place::target_port(service, &pods), &pods, &caches)?)
    }

    /// Who answers pods, also where the stanza has no place; nobody, if that is not known.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn servers(&self) -> Result<Vec<SocketAddr>, ClusterError> {
        let services = self.services().await?;
        let Some((service, address)) = place::asked(&services) else { return Ok(Vec::new()) };
        let pods = self.pods_behind(service).await?;
        let servers = place::servers(&pods, place::target_port(service, &pods));
        Ok(servers.into_iter().map(|(_, server)| server).chain([address]).collect())
    }

    /// The Services of kube-system; where the cluster's DNS is not among them, OpenShift's too.
    async fn services(&self) -> Result<Vec<Service>, ClusterError> {
        let mut services = self.list::<Service>(SYSTEM, &ListParams::default(), "services").await?;
        if place::service(&services).is_err() {
            let openshift = ListParams::default().fields("metadata.name=dns-default");
            services.extend(self.list::<Service>("openshift-dns", &openshift, "services").await?);
        }
        Ok(services)
    }

    async fn pods_behind(&self, service: &Service) -> Result<Vec<Pod>, ClusterError> {
        let namespace = service.metadata.namespace.as_deref().unwrap_or(SYSTEM);
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        match &labels[..] {
            [] => Ok(Vec::new()),
            labels => self.list::<Pod>(namespace, &ListParams::default().labels(&labels.join(",")), "pods").await,
        }
    }

    /// Reads what the cluster's DNS reads.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn read(&self, place: Place) -> Result<There, ClusterError> {
        let mut there = There { place, maps: BTreeMap::new(), texts: Maps::new() };
        // Twice: the first tells what the Corefile imports.
        for _ in 0..2 {
            for name in plan::maps(&there.place, &there.texts) {
                if there.maps.contains_key(&name) {
                    continue;
                }
                let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
                let found = api.get_opt(&name.name).await.map_err(|error| because(format!("reading {name}"), error))?;
                there.texts.insert(name.clone(), found.as_ref().map(|map| map.data.clone().unwrap_or_default()));
                there.maps.insert(name, found);
            }
        }
        Ok(there)
    }

    /// Makes `changes` to what was read as `there`, each ConfigMap at once, in the order of `changes`.
    ///
    /// # Errors
    /// If the API server refuses, or somebody else wrote meanwhile. What was written before stays; another round of
    /// reading and writing finishes it.
    pub async fn write(&self, there: &There, changes: &[Change], right: &Right) -> Result<(), ClusterError> {
        for changes in changes.chunk_by(|one, next| one.file.map == next.file.map) {
            let Some(name) = changes.first().map(|change| &change.file.map) else { continue };
            let before = there.maps.get(name).and_then(Option::as_ref);
            right.exercise(self.write_map(name, before, changes)).await??;
        }
        Ok(())
    }

    async fn write_map(
        &self,
        name: &MapName,
        before: Option<&ConfigMap>,
        changes: &[Change],
    ) -> Result<(), ClusterError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
        let data: Map<String, Value> =
            changes.iter().map(|change| (change.file.key.clone(), json!(change.after))).collect();
        let failed = |error: kube::Error| match error {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => {
                ClusterError::Conflict(name.clone())
            }
            error => because(format!("writing {name}"), error),
        };
        let Some(before) = before else {
            let data = changes.iter().filter_map(|change| Some((change.file.key.clone(), change.after.clone()?)));
            let mut map = ConfigMap { data: Some(data.collect()), ..ConfigMap::default() };
            map.metadata.name = Some(name.name.clone());
            map.metadata.labels = Some(BTreeMap::from([(MADE_BY.0.into(), MADE_BY.1.into())]));
            let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
            let made = api.create(&parameters, &map).await.map(drop);
            return made.map_err(|error| match error {
                kube::Error::Api(status) if status.is_forbidden() => unmade(name, status.message),
                error => failed(error),
            });
        };
        let (version, uid) = (before.metadata.resource_version.clone(), before.metadata.uid.clone());
        let left = before.data.iter().flatten().filter(|(key, _)| !data.get(*key).is_some_and(Value::is_null)).count();
        let added = changes.iter().filter(|change| change.before.is_none() && change.after.is_some()).count();
        let labels = before.metadata.labels.as_ref();
        let made_by_us = labels.and_then(|labels| labels.get(MADE_BY.0)).is_some_and(|value| value == MADE_BY.1);
        if made_by_us && left + added == 0 {
            let preconditions = Some(Preconditions { uid, resource_version: version });
            let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
            return api.delete(&name.name, &parameters).await.map(drop).map_err(failed);
        }
        // A merge patch with the version that was read: this key, or nothing.
        let patch = json!({"metadata": {"resourceVersion": version}, "data": data});
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        api.patch(&name.name, &parameters, &Patch::Merge(&patch)).await.map(drop).map_err(failed)
    }

    /// The address of the mesh's dns.
    ///
    /// # Errors
    /// If there is none, or the API server does not say.
    pub async fn forward(&self, mesh: &Mesh) -> Result<IpAddr, ClusterError> {
        let named = ListParams::default().fields(&format!("metadata.name={}", mesh.service));
        let services = self.list::<Service>(&mesh.namespace, &named, "services").await?;
        let address = services.first().and_then(|service| service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok());
        let (namespace, name) = (mesh.namespace.clone(), mesh.service.clone());
        address.ok_or(ClusterError::NoService { namespace, name })
    }

    /// Whether a pod of the mesh's dns is ready.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn is_ready(&self, mesh: &Mesh) -> Result<bool, ClusterError> {
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={}", mesh.service));
        let slices = self.list::<EndpointSlice>(&mesh.namespace, &of_service, "endpointslices").await?;
        let mut endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        Ok(endpoints.any(|endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true)))
    }

    async fn list<K>(&self, namespace: &str, parameters: &ListParams, kinds: &str) -> Result<Vec<K>, ClusterError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let listed = Api::<K>::namespaced(self.client.clone(), namespace).list(parameters).await;
        Ok(listed.map_err(|error| because(format!("listing {kinds} of namespace {namespace}"), error))?.items)
    }
}

impl Right {
    /// Does one write, if it may be done.
    ///
    /// # Errors
    /// If another leads.
    pub(super) async fn exercise<T>(&self, write: impl Future<Output = T>) -> Result<T, NotLeader> {
        match self {
            Self::Leader(leadership) => leadership.write(write).await,
            Self::Person => Ok(write.await),
        }
    }
}

/// A ConfigMap that has to be there may not be made: no right names what is not there yet, so no chart can give it.
fn unmade(name: &MapName, message: String) -> ClusterError {
    let MapName { namespace, name: map } = name;
    ClusterError::Forbidden {
        what: format!("making {name}"),
        message,
        next: format!(
            "Make it, empty, and the stanza is put there: `kubectl -n {namespace} create configmap {map}`; or do both by \
             `maesh dns install`"
        ),
    }
}

fn because(what: String, error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => ClusterError::Forbidden {
            what,
            message: status.message,
            next:
                "Allow it (the chart's coredns.configMaps names the ConfigMaps that may be written), or add the stanza \
                   by hand: `maesh dns print`"
                    .into(),
        },
        source => ClusterError::Api { what, source: Box::new(source) },
    }
}
