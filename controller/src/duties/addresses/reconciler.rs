//! One leader's work: what is wanted and what is there, and the writes that lie between.
//!
//! What is there is listed once, when this replica begins to lead, and followed from then on. A change is written without
//! a list: only those addresses are looked at that are to be different, or of whose objects there is news.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use maesh_compiler::{
    kinds::OWN_ADDRESS,
    own_address::{self, AddressRequests, Addresses, Ports, SHARED, allocate, share},
};
use maesh_config::ServiceName;
use tokio::time::{Instant, timeout};

use super::{
    MANAGER, Options, READ, ReconcileError, budget,
    direct::Direct,
    listed::Listed,
    object,
    pace::Pace,
    proxies::{Proxies, Proxy},
    refused::Refused,
    slices::{Candidates, WantedSlices},
    writes::Writes,
};
use crate::leader::Leadership;

/// Keeps own addresses as they are wanted, for as long as this replica leads.
pub(super) struct AddressReconciler {
    client: Client,
    services: Api<Service>,
    /// The Services of own addresses, whole enough to compare them. Its first list is the server's own word, and no cache's:
    /// what another leader gave must not be given twice.
    there: Listed<Service, Service>,
    options: Options,
    pace: Pace,
    /// The cluster knows `trafficDistribution: PreferSameNode`, and hints for nodes.
    prefer_same_node: Option<bool>,
    /// What this leader has given; `None` until it has read what those before it gave.
    addresses: Option<Addresses>,
    /// Services for which no port was left, as it was last said.
    without: Vec<ServiceName>,
    /// `None` where addresses list every proxy, however many there are.
    proxies: Option<Proxies>,
    direct: Direct,
    /// Whether addresses list a few proxies only; `None` until it was read how those before left it.
    few: Option<bool>,
    /// Numbers whose names somebody else's objects have.
    taken: BTreeSet<u32>,
    refused: Refused,
    /// Addresses that are as they should be, with the ports that they have.
    settled: Addresses,
    /// From which proxies addresses chose when that was so; `None` where they listed all.
    settled_from: Option<Vec<Proxy>>,
    /// Where to go on. While more changes than may be written, the last addresses would else never have their turn.
    next: u32,
}

impl AddressReconciler {
    pub(super) fn new(client: &Client, options: &Options) -> Self {
        let services: Api<Service> = Api::namespaced(client.clone(), &options.namespace);
        let (read, address) =
            (|service| Some(object::essence(service)), |name: &str, _: &Service| Some(name.to_owned()));
        Self {
            client: client.clone(),
            there: Listed::new("Services of own addresses", services.clone(), OWN_ADDRESS, read, address),
            services,
            pace: Pace::new(options.writes_per_second, Instant::now()),
            prefer_same_node: None,
            addresses: None,
            without: Vec::new(),
            proxies: (options.budget > 0).then(|| Proxies::new(client, options)),
            direct: Direct::new(client, &options.namespace),
            few: None,
            taken: BTreeSet::new(),
            refused: Refused::new(options.recorder.clone()),
            settled: Addresses::new(),
            settled_from: None,
            next: 0,
            options: options.clone(),
        }
    }

    /// Waits for news of the proxies and of what leads to them. May be dropped at any time.
    pub(super) async fn changed(&mut self) {
        let proxies = async {
            match &mut self.proxies {
                Some(proxies) => proxies.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = proxies => {}
            () = self.there.changed() => {}
            () = self.direct.changed() => {}
        }
    }

    /// Writes what is to be written, as fast as it may. Returns when there is more to do, if nothing happens before.
    pub(super) async fn bring_up_to_date(
        &mut self,
        wants: &AddressRequests,
        leadership: &Leadership,
    ) -> Result<Option<Instant>, ReconcileError> {
        let known = self.proxies.as_ref().is_none_or(|proxies| proxies.count().is_some()) && self.direct.is_known();
        if !known || self.there.there().is_none() {
            // News will come.
            return Ok(None);
        }
        let prefer_same_node = self.prefer_same_node().await?;
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let addresses = self.give(wants, now);
        let (few, again) = self.few(&addresses).await?;
        let is_there = |name: &String| self.there.there().is_some_and(|there| there.contains_key(name));
        let has_ours = self.direct.addresses().any(is_there);
        self.direct.mind_theirs(few.is_some() || has_ours);
        self.unsettle(&few);
        let from = few.as_ref().map(|proxies| Candidates::new(proxies, &self.options.namespace, prefer_same_node));
        let mut step = AddressUpdate {
            services: &self.services,
            there: &mut self.there,
            options: &self.options,
            prefer_same_node,
            direct: &mut self.direct,
            writes: Writes { pace: &mut self.pace, leadership },
        };
        let mut moved = false;
        for (number, ports) in addresses.range(self.next..).chain(addresses.range(..self.next)) {
            if self.settled.get(number) == Some(ports) {
                continue;
            }
            self.settled.remove(number);
            let name = own_address::name(*number);
            if self.refused.waits(&name, Instant::now()) {
                continue;
            }
            let found = step.there.there().and_then(|there| there.get(&name)).cloned();
            let done = match &from {
                Some(from) => step.list_few(*number, &name, ports, found.as_ref(), from).await,
                None => step.list_all(&name, ports, found.as_ref()).await,
            };
            match done {
                Ok(()) => {
                    self.refused.clear(&name);
                    // Slices that are still needed are looked at with every change, until those of the cluster are ready.
                    if from.is_some() || !step.direct.has(&name) {
                        self.settled.insert(*number, ports.clone());
                    }
                }
                // A slice in the way is waited for instead: until then the address is served by its selector.
                Err(error @ ReconcileError::Foreign("Service", _)) if *number != SHARED => {
                    tracing::warn!(%error, "the name of an own address is taken; its Services get another one");
                    moved |= self.taken.insert(*number);
                }
                Err(error) if error.is_of_one() => {
                    self.refused.add(&name, Some(ports), error.to_string(), Instant::now());
                }
                Err(error) => {
                    self.next = if matches!(error, ReconcileError::TooEarly(_)) { *number } else { 0 };
                    return Err(error);
                }
            }
        }
        self.next = 0;
        let is_wanted = |name: &str| own_address::number(name).is_some_and(|number| addresses.contains_key(&number));
        let there = step.there.there().into_iter().flatten().filter(|(name, _)| !is_wanted(name));
        let unwanted: Vec<_> = there.map(|(name, service)| (name.clone(), service.metadata.uid.clone())).collect();
        for (name, uid) in unwanted {
            if self.refused.waits(&name, Instant::now()) {
                continue;
            }
            // Its slices go with it.
            match step.writes.delete(&self.services, &name, uid).await {
                Err(error) if error.is_of_one() => self.refused.add(&name, None, error.to_string(), Instant::now()),
                done => {
                    done?;
                    step.there.forget(&name);
                }
            }
        }
        let there = self.there.there();
        self.refused.retain(|name| is_wanted(name) || there.is_some_and(|there| there.contains_key(name)));
        self.settled.retain(|number, _| addresses.contains_key(number));
        if moved {
            return Ok(Some(Instant::now()));
        }
        let freed = freed_next(&addresses, now, self.options.horizon.as_secs());
        let freed = freed.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Ok(freed.into_iter().chain(again).chain(self.refused.next()).min())
    }

    /// Gives each Service its place.
    fn give(&mut self, wants: &AddressRequests, now: u64) -> Addresses {
        let there = self.there.there().into_iter().flat_map(BTreeMap::values);
        let mut given = self.addresses.take().unwrap_or_else(|| object::addresses(there));
        let horizon = self.options.horizon.as_secs();
        let shared = share(given.remove(&SHARED).unwrap_or_default(), &wants.shared, now, horizon);
        let (mut addresses, without) = allocate(given, &wants.own, &self.taken, now, horizon);
        if !shared.is_empty() {
            addresses.insert(SHARED, shared);
        }
        if let Some(first) = without.first().filter(|_| without != self.without) {
            tracing::warn!(service = %first, others = without.len() - 1, "no port of the proxies is left for an own address");
        }
        self.without = without;
        self.addresses = Some(addresses.clone());
        addresses
    }

    /// Where addresses list a few proxies only, all there are to choose from; and when to look at them again.
    async fn few(&mut self, addresses: &Addresses) -> Result<(Option<Vec<Proxy>>, Option<Instant>), ReconcileError> {
        // What the leader before did not bring to an end counts as well: one is enough.
        let mut there = self.there.there().into_iter().flat_map(BTreeMap::values);
        let before = self.few.unwrap_or_else(|| there.any(|service| object::selector(service).is_none()));
        let ports = addresses.values().map(BTreeMap::len).sum();
        let proxies = self.proxies.as_ref().and_then(Proxies::count).unwrap_or(0);
        let few = budget::few(before, ports, proxies, self.options.budget);
        self.few = Some(few);
        if before != few {
            let what = if few { "a few proxies of each zone" } else { "every proxy" };
            tracing::info!(ports, proxies, budget = self.options.budget, "own addresses are to list {what}");
        }
        match self.proxies.as_mut().filter(|_| few) {
            None => Ok((None, None)),
            Some(proxies) => proxies.with_zones().await.map(|(proxies, again)| (Some(proxies), again)),
        }
    }

    /// Has those addresses looked at again of whose objects there is news; all of them when they choose from others.
    fn unsettle(&mut self, from: &Option<Vec<Proxy>>) {
        if self.settled_from != *from {
            self.settled_from.clone_from(from);
            self.settled.clear();
        }
        for name in self.there.take_touched().into_iter().chain(self.direct.take_touched()) {
            own_address::number(&name).and_then(|number| self.settled.remove(&number));
        }
    }

    async fn prefer_same_node(&mut self) -> Result<bool, ReconcileError> {
        if let Some(known) = self.prefer_same_node {
            return Ok(known);
        }
        let minor = timeout(READ, self.client.apiserver_version()).await??.minor;
        let minor: u32 = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        Ok(*self.prefer_same_node.insert(minor >= object::PREFER_SAME_NODE))
    }
}

/// The way of one address to what it should be.
struct AddressUpdate<'a> {
    services: &'a Api<Service>,
    there: &'a mut Listed<Service, Service>,
    options: &'a Options,
    prefer_same_node: bool,
    direct: &'a mut Direct,
    writes: Writes<'a>,
}

impl AddressUpdate<'_> {
    /// Has it list every proxy.
    async fn list_all(&mut self, name: &str, ports: &Ports, found: Option<&Service>) -> Result<(), ReconcileError> {
        let selector = Some(&self.options.selector);
        if !found.is_some_and(|service| object::says(service, ports, selector, self.prefer_same_node)) {
            self.write(name, ports, selector, found).await?;
        }
        if self.direct.has(name) {
            self.direct.delete_covered(name, ports, &mut self.writes).await?;
        }
        Ok(())
    }

    /// Has it list a few of them. A new one needs its uid for its slices; nobody is sent there before they are there.
    async fn list_few(
        &mut self,
        number: u32,
        name: &str,
        ports: &Ports,
        found: Option<&Service>,
        from: &Candidates<'_>,
    ) -> Result<(), ReconcileError> {
        let made = match found {
            Some(_) => None,
            None => Some(self.write(name, ports, None, found).await?),
        };
        let Some(service) = found.or(made.as_ref()) else { return Ok(()) };
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let address = WantedSlices { number, name, uid, ports };
        self.direct.write(&address, from, &mut self.writes).await?;
        if !object::says(service, ports, None, self.prefer_same_node) {
            self.write(name, ports, None, found).await?;
        }
        self.direct.delete_others(&address, from, &mut self.writes).await
    }

    async fn write(
        &mut self,
        name: &str,
        ports: &Ports,
        selector: Option<&object::Selector>,
        found: Option<&Service>,
    ) -> Result<Service, ReconcileError> {
        if found.is_none()
            && timeout(READ, self.services.get_metadata_opt(name)).await??.is_some_and(object::is_foreign)
        {
            return Err(ReconcileError::Foreign("Service", name.to_owned()));
        }
        let owner = self.options.owner.as_ref();
        let wanted = object::service(name, ports, selector, owner, self.prefer_same_node);
        let parameters = PatchParams::apply(MANAGER).force();
        let written = self.writes.write(self.services.patch(name, &parameters, &Patch::Apply(&wanted))).await?;
        let written = object::essence(written);
        self.there.put(name, written.clone());
        Ok(written)
    }
}

/// In how many seconds the next port that was left is free.
fn freed_next(addresses: &Addresses, now: u64, horizon: u64) -> Option<u64> {
    let left = addresses.values().flat_map(BTreeMap::values).filter_map(|entry| entry.leaving);
    left.min().map(|since| (since + horizon).saturating_sub(now).max(1))
}
