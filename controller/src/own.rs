//! Own addresses in a cluster: Services of the mesh's namespace that lead each of their ports to one of the proxies'.
//!
//! The leader makes, changes and removes them; every replica reads from them who stands where, so all say the same.
//! What they hold is all the state there is: an annotation says whose each port is, because users' names do not fit
//! into a name, a label or a port's name. An object without our label is never touched.

mod allocate;
mod object;
pub mod owner;
pub mod stanza;
pub mod uninstall;

use std::{collections::BTreeMap, net::IpAddr, pin::pin, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use maesh_config::{ServiceName, model::Transport};
use tokio::{sync::watch, time::interval};

pub use self::allocate::{Addresses, Entry, POOL, Ports, Want, allocate};
use crate::leader::Leadership;

/// How often what was left is looked at, and what failed is tried again.
const TICK: Duration = Duration::from_secs(2);
/// Who wrote what, in managed fields.
const MANAGER: &str = "maesh-controller";

/// Where and how own addresses are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The mesh's namespace.
    pub namespace: String,
    /// Labels of the proxies' pods.
    pub selector: BTreeMap<String, String>,
    /// How long a name may be remembered: what a Service leaves serves on for that long.
    pub horizon: Duration,
}

/// Where a Service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The ClusterIPs, one of each family; sorted.
    pub addresses: Vec<IpAddr>,
    /// The proxies' port for each of its ports.
    pub ports: BTreeMap<(u16, Transport), u16>,
}

/// Where all of them stand; what is about to leave is not in it.
pub type Placements = BTreeMap<ServiceName, Placed>;

/// Why own addresses could not be brought up to date; it is tried again.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{0}; check the controller's rights on Services of its own namespace")]
    Api(#[from] kube::Error),
    #[error("Service {0} is there and is not the mesh's: own addresses need that name; rename or delete it")]
    Foreign(String),
    #[error(transparent)]
    NotLeader(#[from] crate::leader::NotLeader),
}

/// Keeps own addresses as they are wanted, until `wants` is closed. `None` in `wants`: not everything was read yet, so
/// nothing is removed or given. What is there is told to `placements`.
pub async fn keep(
    client: Client,
    options: Options,
    mut wants: watch::Receiver<Option<Vec<Want>>>,
    leadership: Leadership,
    placements: watch::Sender<Placements>,
) {
    let services = Api::<Service>::namespaced(client.clone(), &options.namespace);
    let (store, writer) = reflector::store();
    let selected = watcher::Config::default().labels(object::LABEL);
    let events = reflector(writer, watcher(services.clone(), selected)).default_backoff().touched_objects();
    let mut events = pin!(events);
    let mut keeper = Keeper { client, services, options, prefer_same_node: None, addresses: None, without: Vec::new() };
    let mut leads = leadership.watch();
    let mut tick = interval(TICK);
    loop {
        let open = tokio::select! {
            event = events.next() => event.is_some(),
            changed = wants.changed() => changed.is_ok(),
            changed = leads.changed() => changed.is_ok(),
            _ = tick.tick() => true,
        };
        if !open {
            return;
        }
        // What has arrived is looked at once: a thousand new Services of ours are not a thousand lists.
        while let Some(Some(_)) = events.next().now_or_never() {}
        let there: Vec<_> = store.state();
        let found = object::placements(there.iter().map(|service| &**service));
        placements.send_if_modified(|now| (*now != found).then(|| *now = found).is_some());
        let wanted = wants.borrow_and_update().clone();
        if !leadership.may_write() {
            keeper.addresses = None;
        } else if let Some(wanted) = wanted
            && let Err(error) = keeper.bring_up_to_date(&wanted, &leadership).await
        {
            tracing::warn!(%error, "own addresses are not up to date; trying again");
        }
    }
}

struct Keeper {
    client: Client,
    services: Api<Service>,
    options: Options,
    /// The cluster knows `trafficDistribution: PreferSameNode`.
    prefer_same_node: Option<bool>,
    /// What this leader has given; `None` until it has read what those before it gave.
    addresses: Option<Addresses>,
    /// Services for which no port was left, as it was last said.
    without: Vec<ServiceName>,
}

impl Keeper {
    async fn bring_up_to_date(&mut self, wants: &[Want], leadership: &Leadership) -> Result<(), KeepError> {
        let prefer_same_node = match self.prefer_same_node {
            Some(known) => known,
            None => {
                let minor = self.client.apiserver_version().await?.minor;
                let minor: u32 = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
                *self.prefer_same_node.insert(minor >= object::PREFER_SAME_NODE)
            }
        };
        // From the server itself, not from a watch that may be behind: what another leader gave must not be given twice.
        let there = self.services.list(&ListParams::default().labels(object::LABEL)).await?.items;
        let given = self.addresses.take().unwrap_or_else(|| object::addresses(&there));
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let (addresses, without) = allocate(given, wants, now, self.options.horizon.as_secs());
        if let Some(first) = without.first().filter(|_| without != self.without) {
            tracing::warn!(service = %first, others = without.len() - 1, "no port of the proxies is left for an own address");
        }
        let there: BTreeMap<_, _> =
            there.iter().filter_map(|service| Some((service.metadata.name.clone()?, service))).collect();
        self.without = without;
        self.addresses = Some(addresses.clone());
        for (number, ports) in &addresses {
            let name = object::name(*number);
            if there.get(&name).is_some_and(|service| object::says(service, ports)) {
                continue;
            }
            if !there.contains_key(&name)
                && self.services.get_metadata_opt(&name).await?.is_some_and(object::is_foreign)
            {
                return Err(KeepError::Foreign(name));
            }
            let wanted = object::service(&name, ports, &self.options.selector, prefer_same_node);
            let patch = Patch::Apply(&wanted);
            let parameters = PatchParams::apply(MANAGER).force();
            leadership.write(self.services.patch(&name, &parameters, &patch)).await??;
        }
        let kept: Vec<_> = addresses.keys().map(|number| object::name(*number)).collect();
        for (name, service) in there.iter().filter(|(name, _)| !kept.contains(*name)) {
            // This one and no other that was made under its name since.
            let uid = service.metadata.uid.clone();
            let preconditions = Some(Preconditions { uid, resource_version: None });
            let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
            match leadership.write(self.services.delete(name, &parameters)).await? {
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                deleted => drop(deleted?),
            }
        }
        Ok(())
    }
}
