//! Own addresses in a cluster: Services of the mesh's namespace that lead each of their ports to one of the proxies'.
//!
//! The leader makes, changes and removes them; every replica reads from them who stands where, so all say the same.
//! What they hold is all the state there is: an annotation says whose each port is, because users' names do not fit
//! into a name, a label or a port's name. An object without our label is never touched.

mod allocate;
pub mod events;
mod object;
pub mod owner;
mod pace;
pub mod stanza;
pub mod uninstall;

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use maesh_config::ServiceName;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

pub(crate) use self::allocate::everybody;
pub use self::allocate::{Addresses, Entry, POOL, Ports, SHARED, Want, Wants, allocate};
pub(crate) use self::object::{number, read_ports};
use self::{allocate::share, pace::Pace};
use crate::{kinds::OWN_ADDRESS, leader::Leadership};

/// How long changes are gathered before they are acted on: of what is wanted, and of what is there. A thousand new
/// Services are not a thousand lists.
const GATHER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// How long the API server may take to say what is there.
const READ: Duration = Duration::from_secs(30);
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
    /// Most writes in a second.
    pub writes_per_second: u32,
    /// With what they go, where nobody is left to remove them.
    pub owner: Option<OwnerReference>,
}

/// Why own addresses could not be brought up to date; it is tried again.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{0}; check the controller's rights on Services of its own namespace")]
    Api(#[from] kube::Error),
    #[error("the API server did not say within {READ:?} what is there")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("Service {0} is there and is not the mesh's: own addresses need that name; rename or delete it")]
    Foreign(String),
    #[error(transparent)]
    NotLeader(#[from] crate::leader::NotLeader),
}

/// Keeps own addresses as they are wanted while this replica leads, until `wants` is closed. `None` in `wants`: not
/// everything was read yet, so nothing is removed or given. While `leaving` is true, the mesh is being taken away by
/// somebody else, and nothing is given.
pub async fn keep(
    client: Client,
    options: Options,
    wants: watch::Receiver<Option<Wants>>,
    leadership: Leadership,
    mut leaving: watch::Receiver<bool>,
) {
    let mut leads = leadership.watch();
    let mut lost = leadership.watch();
    let mut stays = leaving.clone();
    while leads.wait_for(|leads| *leads).await.is_ok() && stays.wait_for(|leaving| !*leaving).await.is_ok() {
        let leaves = async {
            // Who could say so may have ended.
            if leaving.wait_for(|leaving| *leaving).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = lead(&client, &options, wants.clone(), &leadership) => return,
            _ = lost.wait_for(|leads| !*leads) => {}
            () = leaves => {}
        }
    }
}

/// Keeps them while this replica leads; ends when `wants` is closed.
async fn lead(client: &Client, options: &Options, mut wants: watch::Receiver<Option<Wants>>, leadership: &Leadership) {
    let services = Api::<Service>::namespaced(client.clone(), &options.namespace);
    let labelled = watcher::Config::default().labels(OWN_ADDRESS);
    let metadata = Api::<PartialObjectMeta<Service>>::namespaced(client.clone(), &options.namespace);
    let events = watcher(metadata, labelled).default_backoff();
    let mut events = pin!(events);
    let now = Instant::now();
    let mut keeper = Keeper {
        client: client.clone(),
        services,
        options: options.clone(),
        pace: Pace::new(options.writes_per_second, now),
        prefer_same_node: None,
        addresses: None,
        without: Vec::new(),
    };
    let mut due = Some(now);
    loop {
        let sooner = |due: Option<Instant>, pause| {
            let soon = Instant::now() + pause;
            Some(due.map_or(soon, |due| due.min(soon)))
        };
        tokio::select! {
            changed = wants.changed() => match changed {
                Ok(()) => due = sooner(due, GATHER.0),
                Err(_) => return,
            },
            // An error is tried again by the watch itself; what it missed it lists.
            Some(_) = events.next() => due = sooner(due, GATHER.1),
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {
                let wanted = wants.borrow_and_update().clone();
                due = match wanted {
                    None => None,
                    Some(wanted) => keeper.bring_up_to_date(&wanted, leadership).await.unwrap_or_else(|error| {
                        tracing::warn!(%error, "own addresses are not up to date; trying again");
                        Some(Instant::now() + RETRY)
                    }),
                }
            }
        }
    }
}

struct Keeper {
    client: Client,
    services: Api<Service>,
    options: Options,
    pace: Pace,
    /// The cluster knows `trafficDistribution: PreferSameNode`.
    prefer_same_node: Option<bool>,
    /// What this leader has given; `None` until it has read what those before it gave.
    addresses: Option<Addresses>,
    /// Services for which no port was left, as it was last said.
    without: Vec<ServiceName>,
}

impl Keeper {
    /// Writes what is to be written, as fast as it may. Returns when there is more to do, if nothing happens before.
    async fn bring_up_to_date(&mut self, wants: &Wants, leadership: &Leadership) -> Result<Option<Instant>, KeepError> {
        let prefer_same_node = self.prefer_same_node().await?;
        // From the server itself, not from a watch that may be behind: what another leader gave must not be given twice.
        let ours = ListParams::default().labels(OWN_ADDRESS);
        let there = timeout(READ, self.services.list(&ours)).await??.items;
        let mut given = self.addresses.take().unwrap_or_else(|| object::addresses(&there));
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let horizon = self.options.horizon.as_secs();
        let shared = share(given.remove(&SHARED).unwrap_or_default(), &wants.shared, now, horizon);
        let (mut addresses, without) = allocate(given, &wants.own, now, horizon);
        if !shared.is_empty() {
            addresses.insert(SHARED, shared);
        }
        if let Some(first) = without.first().filter(|_| without != self.without) {
            tracing::warn!(service = %first, others = without.len() - 1, "no port of the proxies is left for an own address");
        }
        self.without = without;
        self.addresses = Some(addresses.clone());
        let there: BTreeMap<_, _> =
            there.iter().filter_map(|service| Some((service.metadata.name.clone()?, service))).collect();
        for (number, ports) in &addresses {
            let name = object::name(*number);
            let found = there.get(&name);
            if found.is_some_and(|service| object::says(service, ports, &self.options)) {
                continue;
            }
            if let Err(later) = self.pace.take(Instant::now()) {
                return Ok(Some(later));
            }
            if found.is_none()
                && timeout(READ, self.services.get_metadata_opt(&name)).await??.is_some_and(object::is_foreign)
            {
                return Err(KeepError::Foreign(name));
            }
            let wanted = object::service(&name, ports, &self.options, prefer_same_node);
            let patch = Patch::Apply(&wanted);
            let parameters = PatchParams::apply(MANAGER).force();
            leadership.write(self.services.patch(&name, &parameters, &patch)).await??;
        }
        for (name, service) in there {
            if number(&name).is_some_and(|number| addresses.contains_key(&number)) {
                continue;
            }
            if let Err(later) = self.pace.take(Instant::now()) {
                return Ok(Some(later));
            }
            self.delete(&name, service, leadership).await?;
        }
        Ok(freed_next(&addresses, now, horizon).map(|seconds| Instant::now() + Duration::from_secs(seconds)))
    }

    async fn prefer_same_node(&mut self) -> Result<bool, KeepError> {
        if let Some(known) = self.prefer_same_node {
            return Ok(known);
        }
        let minor = timeout(READ, self.client.apiserver_version()).await??.minor;
        let minor: u32 = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        Ok(*self.prefer_same_node.insert(minor >= object::PREFER_SAME_NODE))
    }

    async fn delete(&self, name: &str, service: &Service, leadership: &Leadership) -> Result<(), KeepError> {
        // This one and no other that was made under its name since.
        let uid = service.metadata.uid.clone();
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match leadership.write(self.services.delete(name, &parameters)).await? {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

/// In how many seconds the next port that was left is free.
fn freed_next(addresses: &Addresses, now: u64, horizon: u64) -> Option<u64> {
    let left = addresses.values().flat_map(BTreeMap::values).filter_map(|entry| entry.leaving);
    left.min().map(|since| (since + horizon).saturating_sub(now).max(1))
}
