//! The stanza in a cluster: reads what the cluster's DNS reads, and writes to it.
//!
//! A write changes one key of a ConfigMap, and only while the ConfigMap is as it was read. Nothing else of the cluster's
//! DNS is ever touched: no pod, no annotation, no Deployment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use maesh_compiler::diagnostic::ObjectRef;
use maesh_config::Zone;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::{
    Change, MapName, Maps, Place, Report, StanzaRefusal, Unplaced,
    place::{self, SERVICE, SYSTEM},
    plan,
};
use crate::{
    api::{self, ApiError},
    leader::{Leadership, NotLeader},
};

/// Who wrote, in managed fields.
const MANAGER: &str = "maesh-stanza";
/// Marks a ConfigMap that was not there before us, and goes with us.
const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "maesh");
/// The pods of NodeLocal DNSCache.
const NODE_LOCAL: &str = "k8s-app=node-local-dns";
/// How long the API server may take for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Who may do what is not allowed with a ConfigMap.
const ALLOW_MAP: &str = "Allow it (the chart's coredns.configMaps names the ConfigMaps that may be written)";

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
    #[error("{what}: {message}. {allow}, or {instead}")]
    Forbidden {
        /// What was wanted.
        what: String,
        /// The server's words.
        message: String,
        /// What to do, so that it may be done.
        allow: String,
        /// What to do without that.
        instead: String,
    },
    /// The API server is silent.
    #[error("{what}: the API server did not answer within {ANSWER:?}")]
    Silent {
        /// What was wanted.
        what: String,
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
    Refusal(#[from] StanzaRefusal),
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
    pub fn report(&self, zones: &[Zone], forward: IpAddr) -> Result<Report, StanzaRefusal> {
        plan::report(&self.place, &self.texts, zones, forward)
    }

    /// What to write so that the mesh's zones lead to `forward`.
    ///
    /// # Errors
    /// If what it reads is not understood.
    pub fn additions(&self, zones: &[Zone], forward: IpAddr) -> Result<Vec<Change>, StanzaRefusal> {
        plan::additions(&self.place, &self.texts, zones, forward)
    }

    /// What to write so that nothing of the mesh's is left, as far as what it reads is understood; and what is not.
    pub fn removals(&self, zones: &[Zone], forward: Option<IpAddr>) -> (Vec<Change>, Option<StanzaRefusal>) {
        plan::removals(&self.place, &self.texts, zones, forward)
    }

    /// The ConfigMaps that `changes` are made to and that are not there yet: a controller may not make them.
    pub fn missing(&self, changes: &[Change]) -> Vec<MapName> {
        let changed: BTreeSet<_> = changes.iter().map(|change| &change.file.map).collect();
        changed.into_iter().filter(|map| !self.is_there(map)).cloned().collect()
    }

    /// Whether a ConfigMap was there when it was read.
    pub fn is_there(&self, map: &MapName) -> bool {
        self.maps.get(map).is_some_and(Option::is_some)
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

    /// Where people look who look after the cluster's DNS, and its uid: the ConfigMap that it reads; its Service, where that
    /// ConfigMap is not known or may not be read.
    pub(super) async fn looked_after(&self) -> (ObjectRef, Option<String>) {
        if let Ok(place) = self.place().await {
            let MapName { namespace, name } = place.software.map();
            let map = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
            if let Ok(found) = answer("reading", ALLOW_MAP, map.get_metadata(name)).await {
                return (ObjectRef::new("ConfigMap", namespace, name), found.metadata.uid);
            }
        }
        let services = self.services().await.unwrap_or_default();
        let service = place::asked(&services).map(|(service, _)| service.metadata.clone()).unwrap_or_default();
        let (namespace, name) = (service.namespace.as_deref(), service.name.as_deref());
        (ObjectRef::new("Service", namespace.unwrap_or(SYSTEM), name.unwrap_or(SERVICE)), service.uid)
    }

    /// The Services of kube-system; where the cluster's DNS is not among them, OpenShift's too. Who may not look there
    /// (no chart gives a right in a namespace that few clusters have) finds none there.
    async fn services(&self) -> Result<Vec<Service>, ClusterError> {
        let mut services = self.list::<Service>(SYSTEM, &ListParams::default(), "services").await?;
        if place::service(&services).is_err() {
            let openshift = ListParams::default().fields("metadata.name=dns-default");
            match self.list::<Service>("openshift-dns", &openshift, "services").await {
                Err(ClusterError::Forbidden { .. }) => {}
                found => services.extend(found?),
            }
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
                let found = answer(&format!("reading {name}"), ALLOW_MAP, api.get_opt(&name.name)).await?;
                there.texts.insert(name.clone(), found.as_ref().map(|map| map.data.clone().unwrap_or_default()));
                there.maps.insert(name, found);
            }
        }
        Ok(there)
    }

    /// Makes `changes` to what was read as `there`, each ConfigMap at once, in the order of `changes`. Where one of them
    /// has to be made and may not be, nothing is written.
    ///
    /// # Errors
    /// If the API server refuses, or somebody else wrote meanwhile. What was written before stays; another round of
    /// reading and writing finishes it.
    pub async fn write(&self, there: &There, changes: &[Change], right: &Right) -> Result<(), ClusterError> {
        let missing = there.missing(changes);
        let of = |map: &MapName| changes.iter().filter(|change| change.file.map == *map).cloned().collect::<Vec<_>>();
        for map in &missing {
            self.make(map, &of(map), true, right).await?;
        }
        for changes in changes.chunk_by(|one, next| one.file.map == next.file.map) {
            let Some(name) = changes.first().map(|change| &change.file.map) else { continue };
            match there.maps.get(name).and_then(Option::as_ref) {
                None => self.make(name, changes, false, right).await?,
                Some(before) => self.change(name, before, changes, right).await?,
            }
        }
        Ok(())
    }

    /// Makes a ConfigMap, or asks only whether it may be made.
    async fn make(&self, name: &MapName, changes: &[Change], dry_run: bool, right: &Right) -> Result<(), ClusterError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
        let data = changes.iter().filter_map(|change| Some((change.file.key.clone(), change.after.clone()?)));
        let mut map = ConfigMap { data: Some(data.collect()), ..ConfigMap::default() };
        map.metadata.name = Some(name.name.clone());
        map.metadata.labels = Some(BTreeMap::from([(MADE_BY.0.into(), MADE_BY.1.into())]));
        let parameters = PostParams { field_manager: Some(MANAGER.into()), dry_run };
        let what = format!("making {name}");
        let made = answer(&what, ALLOW_MAP, api.create(&parameters, &map));
        right.exercise(made).await?.map(drop).map_err(|error| match error {
            ClusterError::Forbidden { what, message, .. } => unmade(name, what, message),
            error => conflict(name, error),
        })
    }

    /// Changes keys of a ConfigMap that is as it was read. One that we made and that nothing is left in is removed, by
    /// whoever may; it stays, empty, where that is not allowed.
    async fn change(
        &self,
        name: &MapName,
        before: &ConfigMap,
        changes: &[Change],
        right: &Right,
    ) -> Result<(), ClusterError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
        let (version, uid) = (before.metadata.resource_version.clone(), before.metadata.uid.clone());
        if is_emptied(before, changes) {
            let preconditions = Some(Preconditions { uid, resource_version: version.clone() });
            let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
            let what = format!("removing {name}");
            let removed = answer(&what, ALLOW_MAP, api.delete(&name.name, &parameters));
            match right.exercise(removed).await? {
                Err(ClusterError::Forbidden { .. }) => {}
                removed => return removed.map(drop).map_err(|error| conflict(name, error)),
            }
        }
        let data: Map<String, Value> =
            changes.iter().map(|change| (change.file.key.clone(), json!(change.after))).collect();
        // A merge patch with the version that was read: this key, or nothing.
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "data": data}));
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let what = format!("writing {name}");
        let written = answer(&what, ALLOW_MAP, api.patch(&name.name, &parameters, &patch));
        right.exercise(written).await?.map(drop).map_err(|error| conflict(name, error))
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

    /// What asks the API server.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) async fn list<K>(
        &self,
        namespace: &str,
        parameters: &ListParams,
        kinds: &str,
    ) -> Result<Vec<K>, ClusterError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let what = format!("listing {kinds} of namespace {namespace}");
        let allow = format!("Allow it (verb list on {kinds} there, as the chart's roles do)");
        Ok(answer(&what, &allow, api.list(parameters)).await?.items)
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

/// Nothing is left after `changes` in a ConfigMap that we made.
fn is_emptied(before: &ConfigMap, changes: &[Change]) -> bool {
    let labels = before.metadata.labels.as_ref();
    let made_by_us = labels.and_then(|labels| labels.get(MADE_BY.0)).is_some_and(|value| value == MADE_BY.1);
    let removed = |key: &String| changes.iter().any(|change| change.file.key == *key && change.after.is_none());
    let left = before.data.iter().flatten().filter(|(key, _)| !removed(key)).count();
    made_by_us && left == 0 && changes.iter().all(|change| change.after.is_none())
}

/// A ConfigMap that has to be there may not be made: no right names what is not there yet, so no chart can give it.
fn unmade(name: &MapName, what: String, message: String) -> ClusterError {
    let MapName { namespace, name: map } = name;
    ClusterError::Forbidden {
        what,
        message,
        allow: format!("Make it, empty, and the stanza is put there: `kubectl -n {namespace} create configmap {map}`"),
        instead: "do both by `maesh dns install`".into(),
    }
}

/// Whether `error` is that somebody else wrote.
fn conflict(name: &MapName, error: ClusterError) -> ClusterError {
    match &error {
        ClusterError::Api { source, .. } if ApiError::Conflict.is(source) => ClusterError::Conflict(name.clone()),
        _ => error,
    }
}

/// Waits for one answer of the API server. `allow`: what to do where it refuses for want of rights.
pub(super) async fn answer<T>(
    what: &str,
    allow: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    let what = what.to_owned();
    match timeout(ANSWER, request).await {
        Err(_) => Err(ClusterError::Silent { what }),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) if ApiError::Forbidden.is(&source) => Err(ClusterError::Forbidden {
            what,
            message: api::said(&source),
            allow: allow.to_owned(),
            instead: "add the stanza by hand: `maesh dns print`".into(),
        }),
        Ok(Err(source)) => Err(ClusterError::Api { what, source: Box::new(source) }),
    }
}
