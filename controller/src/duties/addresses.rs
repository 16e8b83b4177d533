//! Own addresses in a cluster: Services of the mesh's namespace that lead each of their ports to one of the proxies'.
//!
//! The leader makes, changes and removes them; every replica reads from them who stands where, so all say the same.
//! What they hold is all the state there is: an annotation says whose each port is, because users' names do not fit
//! into a name, a label or a port's name. An object without our label is never touched.

mod budget;
mod direct;
mod listed;
mod object;
mod pace;
mod proxies;
mod reconciler;
mod refused;
mod slices;
mod writes;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use maesh_compiler::own_address::AddressRequests;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use self::reconciler::AddressReconciler;
use crate::{api::ApiError, leader::Leadership};

/// How long changes are gathered before they are acted on: of what is wanted, and of what is there. A thousand new
/// Services are not a thousand passes.
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
    /// Ports of own addresses times proxies past which each address lists a few proxies of each zone; 0: always all.
    pub budget: u32,
    /// With what they go, where nobody is left to remove them.
    pub owner: Option<OwnerReference>,
    /// Who is told what an address is refused for.
    pub recorder: Option<super::events::Recorder>,
}

/// Why own addresses could not be brought up to date; it is tried again.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("{0}; check the controller's rights on Services and EndpointSlices of its own namespace")]
    Api(#[from] kube::Error),
    #[error("the API server did not say within {READ:?} what is there")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("{0} {1} is there and is not the mesh's; rename or delete it")]
    Foreign(&'static str, String),
    /// Nothing went wrong: writes are as fast as they may be.
    #[error("the next write may be in {:?}", .0.saturating_duration_since(Instant::now()))]
    TooEarly(Instant),
    #[error(transparent)]
    NotLeader(#[from] crate::leader::NotLeader),
}

impl ReconcileError {
    /// Whether only the address in hand is concerned, and others may do.
    fn is_of_one(&self) -> bool {
        match self {
            Self::Foreign(..) => true,
            // Not who we are, how much is asked, or how the server does.
            Self::Api(error) => !matches!(ApiError::of(error), ApiError::Later | ApiError::Stranger),
            Self::Silent(_) | Self::TooEarly(_) | Self::NotLeader(_) => false,
        }
    }
}

/// Keeps own addresses as they are wanted while this replica leads, until `wants` is closed. `None` in `wants`: not
/// everything was read yet, so nothing is removed or given. While `leaving` is true, the mesh is being taken away by
/// somebody else, and nothing is given.
pub async fn keep(
    client: Client,
    options: Options,
    wants: watch::Receiver<Option<AddressRequests>>,
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
async fn lead(
    client: &Client,
    options: &Options,
    mut wants: watch::Receiver<Option<AddressRequests>>,
    leadership: &Leadership,
) {
    let now = Instant::now();
    let mut reconciler = AddressReconciler::new(client, options);
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
            () = reconciler.changed() => due = sooner(due, GATHER.1),
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {
                let wanted = wants.borrow_and_update().clone();
                due = match wanted {
                    None => None,
                    Some(wanted) => next(reconciler.bring_up_to_date(&wanted, leadership).await),
                }
            }
        }
    }
}

/// When to look again, if nothing happens before.
fn next(done: Result<Option<Instant>, ReconcileError>) -> Option<Instant> {
    match done {
        Ok(next) => next,
        // Several at once.
        Err(ReconcileError::TooEarly(next)) => Some(next.max(Instant::now() + GATHER.1)),
        Err(error) => {
            tracing::warn!(%error, "own addresses are not up to date; trying again");
            Some(Instant::now() + RETRY)
        }
    }
}
