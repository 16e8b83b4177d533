//! What a compilation yields: only what differs from before.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use ahash::AHashMap;
use maesh_config::{
    Change, Key, Kind, Resource, ServiceName,
    model::{Name, Protocol, Proxy},
};
use xxhash_rust::xxh3::Xxh3;

use crate::{diagnostic::Diagnostic, own_address::AddressRequests};

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Resources, sorted by kind and name.
    pub change: Change,
    /// Services of which a resource changed, sorted; their entries are those now wanted.
    pub services: Vec<TableEntry>,
    /// What is needed of own addresses, where they are Services of a cluster and it is news.
    pub wants: Option<AddressRequests>,
    /// Services that are not in the mesh any longer.
    pub removed: Vec<ServiceName>,
    /// Diagnostics that were not there before.
    pub found: Vec<Diagnostic>,
    /// Diagnostics that hold no longer.
    pub cleared: Vec<Diagnostic>,
}

impl Output {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A meshed Service, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// The Service.
    pub service: ServiceName,
    /// The address of its name: in a cluster, `None` for that of the caller's node.
    pub address: Option<IpAddr>,
    /// Its ports.
    pub ports: Vec<TablePort>,
    /// Its name answers the plain address on purpose.
    pub bypass: bool,
    /// Every ready proxy listens for it, or none ever will: there is nothing to wait for.
    pub settled: bool,
}

/// A port in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePort {
    /// Its name.
    pub name: Option<Arc<str>>,
    /// The Service's port number.
    pub port: u16,
    /// Where the address listens for it.
    pub listen: u16,
    /// What it carries.
    pub protocol: Protocol,
}

impl TableEntry {
    pub(crate) fn of(name: &Name, address: Option<IpAddr>, bypass: bool, settled: bool) -> Self {
        let ports = name.ports.iter().map(|port| TablePort {
            name: port.name.clone(),
            port: port.number,
            listen: if bypass { port.number } else { port.listen },
            protocol: port.protocol,
        });
        Self { service: name.service.clone(), address, ports: ports.collect(), bypass, settled }
    }
}

/// Collects changes, and knows what was said before.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Hash of each resource as it was last said.
    said: AHashMap<Key, u64>,
    proxies: BTreeSet<Arc<str>>,
    table: AHashMap<ServiceName, TableEntry>,
    diagnostics: AHashMap<Box<str>, Vec<Diagnostic>>,
    /// What was wrong, at places where something else is wrong since the last output.
    rediagnosed: AHashMap<Box<str>, Vec<Diagnostic>>,
    touched: BTreeSet<ServiceName>,
    pending: Output,
}

impl Outbox {
    /// Says a resource.
    pub(crate) fn put(&mut self, resource: Resource) {
        let key = resource.key();
        self.set(key.kind, &key.name.clone(), Some(resource));
    }

    /// Whether a resource of this name was said, and still holds.
    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        self.said.contains_key(&Key { kind, name: name.into() })
    }

    /// Says a resource, or that there is none of this name. Returns whether that is news.
    pub(crate) fn set(&mut self, kind: Kind, name: &str, resource: Option<Resource>) -> bool {
        let key = Key { kind, name: name.into() };
        let news = match resource {
            Some(resource) => {
                let mut hasher = Xxh3::new();
                resource.hash(&mut hasher);
                let hash = hasher.finish();
                let news = self.said.insert(key.clone(), hash) != Some(hash);
                if news {
                    self.pending.change.upserts.push(resource);
                }
                news
            }
            None => {
                let news = self.said.remove(&key).is_some();
                if news {
                    self.pending.change.removed.push(key.clone());
                }
                news
            }
        };
        if news
            && matches!(kind, Kind::Name | Kind::Service | Kind::Endpoints)
            && let Ok(service) = name.parse()
        {
            self.touched.insert(service);
        }
        news
    }

    /// Says which proxies there are: of each what is known of it, or `None` for what was said before.
    pub(crate) fn replace_proxies(&mut self, proxies: Vec<(Arc<str>, Option<Proxy>)>) {
        let now: BTreeSet<_> = proxies.iter().map(|(id, _)| id.clone()).collect();
        let (stay, gone): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.proxies).into_iter().partition(|id| now.contains(id));
        self.proxies = stay;
        for gone in gone {
            self.set(Kind::Proxy, &gone, None);
        }
        for (id, proxy) in proxies {
            if let Some(proxy) = proxy {
                self.proxies.insert(id.clone());
                self.set(Kind::Proxy, &id, Some(Resource::Proxy(proxy)));
            }
        }
    }

    /// What is needed of own addresses.
    pub(crate) fn want(&mut self, wants: AddressRequests) {
        self.pending.wants = Some(wants);
    }

    /// Something that these Services need changed.
    pub(crate) fn touch(&mut self, services: Vec<ServiceName>) {
        self.touched.extend(services);
    }

    /// A Service's entry in the table.
    pub(crate) fn table(&mut self, entry: TableEntry) {
        if self.table.get(&entry.service) != Some(&entry) {
            self.touched.insert(entry.service.clone());
            self.table.insert(entry.service.clone(), entry);
        }
    }

    /// A Service is in the table no longer.
    pub(crate) fn untable(&mut self, service: &ServiceName) {
        if self.table.remove(service).is_some() {
            self.pending.removed.push(service.clone());
        }
    }

    /// Everything that is wrong at `place`, in full.
    pub(crate) fn diagnose(&mut self, place: &str, mut now: Vec<Diagnostic>) {
        now.sort_unstable();
        now.dedup();
        let before = if now.is_empty() {
            // Nothing wrong, as before: the usual case must not allocate.
            self.diagnostics.remove(place).unwrap_or_default()
        } else {
            self.diagnostics.insert(place.into(), now.clone()).unwrap_or_default()
        };
        // Said more than once before anybody is told: only the last word counts.
        if before != now {
            self.rediagnosed.entry(place.into()).or_insert(before);
        }
    }

    /// What is wrong at `place` now.
    pub(crate) fn diagnostics_at(&self, place: &str) -> &[Diagnostic] {
        self.diagnostics.get(place).map_or(&[], Vec::as_slice)
    }

    /// What has come together.
    pub(crate) fn take(&mut self) -> Output {
        let mut output = std::mem::take(&mut self.pending);
        for (place, before) in std::mem::take(&mut self.rediagnosed) {
            let now = self.diagnostics.get(&place).map_or(&[][..], Vec::as_slice);
            output.cleared.extend(before.iter().filter(|old| !now.contains(old)).cloned());
            output.found.extend(now.iter().filter(|new| !before.contains(new)).cloned());
        }
        let touched = std::mem::take(&mut self.touched);
        output.services = touched.iter().filter_map(|service| self.table.get(service).cloned()).collect();
        output.change.upserts.sort_by_cached_key(Resource::key);
        output.change.removed.sort_unstable();
        output.removed.sort_unstable();
        output.found.sort_unstable();
        output.cleared.sort_unstable();
        output
    }
}
