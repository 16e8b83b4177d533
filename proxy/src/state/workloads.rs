//! What is known of callers' addresses.

use std::{net::IpAddr, sync::Arc};

use maesh_config::model::{Workload, WorkloadKind};

use super::shard::Sharded;

/// Workloads by address.
#[derive(Default)]
pub(crate) struct Workloads {
    by_address: Sharded<IpAddr, Arc<Workload>>,
}

impl Workloads {
    /// The pod, or node, at this address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// Applies a batch: new workloads, and names of those that are gone. Ranges say nothing of a caller here.
    pub(crate) fn apply(&self, upserts: &[Workload], removed: &[Arc<str>]) {
        let gone = removed.iter().filter_map(|name| name.parse().ok()).map(|address: IpAddr| (address, None));
        let new = upserts
            .iter()
            .filter(|workload| workload.kind != WorkloadKind::PodRange)
            .map(|workload| (workload.address.addr().to_canonical(), Some(Arc::new(workload.clone()))));
        self.by_address.apply(gone.chain(new));
    }
}
