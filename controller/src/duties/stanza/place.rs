//! Where the cluster's DNS reads what it does: found from what runs, never from names and versions of products.
//!
//! The Service that pods ask, the pods behind it, the files that they are started with, the ConfigMaps that these files
//! come from.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::{
    api::core::v1::{ConfigMapVolumeSource, Container, Pod, PodSpec, Service},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// What CoreDNS reads when it is not told otherwise.
const COREFILE: &str = "Corefile";
/// The namespace of the cluster's own parts.
pub(super) const SYSTEM: &str = "kube-system";
/// The Service that pods ask, whatever answers.
pub(super) const SERVICE: &str = "kube-dns";
/// The ConfigMap in which kube-dns and NodeLocal DNSCache look for stub domains.
const KUBE_DNS: &str = "kube-dns";

/// A ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigMap {}/{}", self.namespace, self.name)
    }
}

/// The cluster's DNS, as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where pods ask.
    pub service: SocketAddr,
    /// Who answers, by pod.
    pub servers: Vec<(String, SocketAddr)>,
    /// What it is.
    pub software: Software,
    /// Where the caches on the nodes read their stub domains, if there are any; they never ask the cluster's DNS for
    /// other zones than its own.
    pub node_local: Option<MapName>,
}

/// What answers, and what tells it what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Software {
    /// CoreDNS and its Corefile.
    CoreDns {
        /// The ConfigMap of the Corefile.
        map: MapName,
        /// The Corefile's key in it.
        key: String,
        /// The folder that it is read in, without final slash.
        folder: String,
        /// Further folders that hold ConfigMaps.
        mounts: Vec<(String, MapName)>,
    },
    /// kube-dns, which knows stub domains and nothing of who asks.
    KubeDns {
        /// The ConfigMap of its stub domains.
        map: MapName,
    },
}

/// Why it was not found. The stanza can still be added by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// No such Service.
    #[error(
        "no Service of the cluster's DNS was found in kube-system (label k8s-app=kube-dns, or named kube-dns). Add the \
         stanza by hand: `maesh dns print`"
    )]
    NoService,
    /// The operator writes the Corefile itself.
    #[error(
        "OpenShift's DNS operator writes the Corefile. Add the zones to dns.operator.openshift.io/default by hand: \
         coredns-snippet/openshift.yaml"
    )]
    OpenShift,
    /// Nothing runs behind the Service.
    #[error("no pod runs behind Service {0}. Wait until the cluster's DNS runs")]
    NoPods(String),
    /// What runs has no Corefile in a ConfigMap.
    #[error(
        "Pod {0} reads no Corefile from a ConfigMap. Add the stanza by hand where its settings come from: `maesh dns \
         print`"
    )]
    NoCorefile(String),
}

/// Chooses the Service that pods ask among those of kube-system and OpenShift's DNS.
///
/// # Errors
/// If there is none that we can serve.
pub(super) fn service(services: &[Service]) -> Result<(&Service, SocketAddr), Unplaced> {
    let named = |name: &str| services.iter().find(|service| service.metadata.name.as_deref() == Some(name));
    let labelled = || services.iter().find(|service| label(service) == Some("kube-dns") && address(service).is_some());
    let found = named(SERVICE).filter(|service| address(service).is_some()).or_else(labelled);
    match found.and_then(|service| Some((service, address(service)?))) {
        Some(found) => Ok(found),
        None if named("dns-default").is_some() => Err(Unplaced::OpenShift),
        None => Err(Unplaced::NoService),
    }
}

/// The Service that pods ask, also where we cannot serve it.
pub(super) fn asked(services: &[Service]) -> Option<(&Service, SocketAddr)> {
    let openshift = || services.iter().find(|service| service.metadata.name.as_deref() == Some("dns-default"));
    service(services).ok().or_else(|| openshift().and_then(|service| Some((service, address(service)?))))
}

fn label(service: &Service) -> Option<&str> {
    service.metadata.labels.as_ref()?.get("k8s-app").map(String::as_str)
}

fn address(service: &Service) -> Option<SocketAddr> {
    let spec = service.spec.as_ref()?;
    let address: IpAddr = spec.cluster_ip.as_deref()?.parse().ok()?;
    let udp = spec.ports.iter().flatten().find(|port| port.protocol.as_deref() == Some("UDP"))?;
    Some(SocketAddr::new(address, u16::try_from(udp.port).ok()?))
}

/// The port on which the pods behind the Service listen.
pub(super) fn target_port(service: &Service, pods: &[Pod]) -> u16 {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = ports.filter(|port| port.protocol.as_deref() == Some("UDP")).map(|port| (port.port, &port.target_port));
    let number = match port.clone().next() {
        Some((_, Some(IntOrString::Int(number)))) => Some(*number),
        Some((_, Some(IntOrString::String(name)))) => {
            let containers = pods.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
        Some((number, None)) => Some(number),
        None => None,
    };
    number.and_then(|number| u16::try_from(number).ok()).unwrap_or(53)
}

/// Reads from the pods behind the Service what they are and where their settings come from. `caches` are the pods of
/// NodeLocal DNSCache.
///
/// # Errors
/// If nothing runs, or what runs reads no ConfigMap.
pub(super) fn place(
    service: &str,
    address: SocketAddr,
    port: u16,
    pods: &[Pod],
    caches: &[Pod],
) -> Result<Place, Unplaced> {
    let first = pods.iter().find(|pod| runs(pod)).ok_or_else(|| Unplaced::NoPods(service.to_owned()))?;
    let node_local = caches.iter().find(|pod| runs(pod)).map(stub_map);
    Ok(Place { service: address, servers: servers(pods, port), software: software(first)?, node_local })
}

/// Who of the pods behind the Service answers, by name.
pub(super) fn servers(pods: &[Pod], port: u16) -> Vec<(String, SocketAddr)> {
    let servers = pods.iter().filter(|pod| runs(pod)).filter_map(|pod| {
        let ip = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
        Some((pod.metadata.name.clone()?, SocketAddr::new(ip, port)))
    });
    servers.collect()
}

fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

fn software(pod: &Pod) -> Result<Software, Unplaced> {
    let name = || pod.metadata.name.clone().unwrap_or_default();
    let spec = pod.spec.as_ref().ok_or_else(|| Unplaced::NoCorefile(name()))?;
    if spec.containers.iter().any(|container| container.name == "kubedns") {
        return Ok(Software::KubeDns { map: stub_map(pod) });
    }
    let found = spec.containers.iter().find_map(|container| corefile(pod, spec, container));
    found.ok_or_else(|| Unplaced::NoCorefile(name()))
}

/// The ConfigMap that a pod of kube-dns or NodeLocal DNSCache reads its stub domains from.
fn stub_map(pod: &Pod) -> MapName {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let maps =
        volumes.filter(|volume| volume.name == "kube-dns-config").filter_map(|volume| volume.config_map.as_ref());
    let name = maps.map(|map| map.name.clone()).next();
    let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| SYSTEM.into());
    MapName { namespace, name: name.unwrap_or_else(|| KUBE_DNS.into()) }
}

fn corefile(pod: &Pod, spec: &PodSpec, container: &Container) -> Option<Software> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or(SYSTEM);
    let words = || container.command.iter().flatten().chain(container.args.iter().flatten());
    let mut after = words().skip_while(|word| !matches!(word.as_str(), "-conf" | "--conf")).skip(1);
    let joined = words().find_map(|word| word.trim_start_matches('-').strip_prefix("conf="));
    let path = joined.or_else(|| after.next().map(String::as_str)).unwrap_or(COREFILE);
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", container.working_dir.as_deref().unwrap_or("").trim_end_matches('/'))
    };
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let folder = mount.mount_path.trim_end_matches('/').to_owned();
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let maps = volume.map(|volume| {
            let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
            let projected =
                projected.filter_map(|source| source.config_map.as_ref()).map(|map| ConfigMapVolumeSource {
                    items: map.items.clone(),
                    name: map.name.clone(),
                    ..ConfigMapVolumeSource::default()
                });
            volume.config_map.clone().into_iter().chain(projected).collect::<Vec<_>>()
        });
        mounts.extend(maps.into_iter().flatten().map(|map| (folder.clone(), map)));
    }
    let (folder, file) = path.rsplit_once('/')?;
    let (map, key) = mounts.iter().filter(|(mounted, _)| mounted == folder).find_map(|(_, map)| {
        let key = match &map.items {
            None => file.to_owned(),
            Some(items) => items.iter().find(|item| item.path == file)?.key.clone(),
        };
        Some((map.name.clone(), key))
    })?;
    let name = |name: String| MapName { namespace: namespace.to_owned(), name };
    let others = mounts.into_iter().filter(|(mounted, _)| mounted != folder);
    Some(Software::CoreDns {
        map: name(map),
        key,
        folder: folder.to_owned(),
        mounts: others.map(|(folder, map)| (folder, name(map.name))).collect(),
    })
}

impl Software {
    /// The ConfigMap that tells it what to do.
    pub(super) fn map(&self) -> &MapName {
        let (Self::CoreDns { map, .. } | Self::KubeDns { map }) = self;
        map
    }

    /// The ConfigMap whose keys a pattern of the Corefile imports, and the pattern's end that all their names have.
    pub(super) fn imported(&self, pattern: &str) -> Option<(MapName, String)> {
        let Self::CoreDns { folder, mounts, .. } = self else { return None };
        let path = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{folder}/{pattern}") };
        let (folder, file) = path.rsplit_once('/')?;
        let suffix = file.strip_prefix('*').filter(|suffix| !suffix.contains(['*', '?', '[']))?;
        let (_, map) = mounts.iter().find(|(mounted, _)| mounted == folder)?;
        Some((map.clone(), suffix.to_owned()))
    }
}

#[cfg(test)]
mod tests;
