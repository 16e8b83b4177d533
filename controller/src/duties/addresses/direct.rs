//! The EndpointSlices of addresses that list a few proxies: how they get there, and how they go again.
//!
//! No connection may fail on the way. Ours are written before the Service's selector is taken away, and the slices that
//! the cluster's controller leaves behind are deleted only then; on the way back, ours stay until its slices lead
//! wherever ours do. Between, kube-proxy uses both.

use std::collections::BTreeSet;

use k8s_openapi::{api::discovery::v1::EndpointSlice, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use maesh_compiler::{kinds::OWN_ADDRESS, own_address::Ports};
use tokio::time::timeout;

use super::{
    MANAGER, READ, ReconcileError,
    listed::Listed,
    slices::{self, CLUSTERS, Candidates, MANAGED_BY, OURS, SERVICE, WantedSlices},
    writes::Writes,
};

/// A slice of ours.
#[derive(Debug, PartialEq)]
struct OwnSlice {
    uid: Option<String>,
    /// Its essence.
    slice: EndpointSlice,
}

/// A slice of the cluster's controller.
#[derive(Debug, PartialEq)]
struct Theirs {
    uid: Option<String>,
    service: String,
}

/// The slices that are there.
pub(super) struct Direct {
    api: Api<EndpointSlice>,
    metadata: Api<PartialObjectMeta<EndpointSlice>>,
    ours: Listed<EndpointSlice, OwnSlice>,
    /// Looked at only while some of ours are there or will be: where all proxies are listed, they are large, and change
    /// with every pod.
    theirs: Option<Listed<PartialObjectMeta<EndpointSlice>, Theirs>>,
}

impl Direct {
    /// Watches them while [`Self::changed`] is awaited.
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        let api = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
        let labels = format!("{OWN_ADDRESS},{MANAGED_BY}={OURS}");
        let read =
            |slice: EndpointSlice| Some(OwnSlice { uid: slice.metadata.uid.clone(), slice: slices::essence(slice) });
        let address = |_: &str, ours: &OwnSlice| slices::service(&ours.slice.metadata).map(str::to_owned);
        let ours = Listed::new("EndpointSlices of own addresses", api.clone(), &labels, read, address);
        Self { api, metadata: Api::namespaced(client.clone(), namespace), ours, theirs: None }
    }

    /// Whether it is known what is there.
    pub(super) fn is_known(&self) -> bool {
        self.ours.there().is_some()
    }

    /// Waits for news of them.
    pub(super) async fn changed(&mut self) {
        let theirs = async {
            match &mut self.theirs {
                Some(theirs) => theirs.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.ours.changed() => {}
            () = theirs => {}
        }
    }

    /// Looks at the slices of the cluster's controller from now on, or no longer.
    pub(super) fn mind_theirs(&mut self, needed: bool) {
        if !needed {
            self.theirs = None;
        } else if self.theirs.is_none() {
            let read = |slice: PartialObjectMeta<EndpointSlice>| {
                let service = slices::service(&slice.metadata)?.to_owned();
                Some(Theirs { uid: slice.metadata.uid, service })
            };
            let labels = format!("{MANAGED_BY}={CLUSTERS}");
            let api = self.metadata.clone();
            let address = |_: &str, theirs: &Theirs| Some(theirs.service.clone());
            self.theirs = Some(Listed::new("EndpointSlices of the cluster", api, &labels, read, address));
        }
    }

    /// Whether Service `name` has slices of ours.
    pub(super) fn has(&self, name: &str) -> bool {
        self.ours.of(name).next().is_some()
    }

    /// The Services that have slices of ours.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &String> {
        self.ours.addresses()
    }

    /// The Services of whose slices there is news since the last call.
    pub(super) fn take_touched(&mut self) -> BTreeSet<String> {
        let mut touched = self.ours.take_touched();
        touched.extend(self.theirs.as_mut().map(Listed::take_touched).unwrap_or_default());
        touched
    }

    /// Writes the slices of an address where they are not as they should be.
    pub(super) async fn write(
        &mut self,
        address: &WantedSlices<'_>,
        from: &Candidates<'_>,
        writes: &mut Writes<'_>,
    ) -> Result<(), ReconcileError> {
        for wanted in from.slices(address) {
            let Some(name) = wanted.metadata.name.clone() else { continue };
            let slice = slices::essence(wanted.clone());
            let there = self.ours.there().and_then(|ours| ours.get(&name));
            if there.is_some_and(|there| there.slice == slice) {
                continue;
            }
            if there.is_none() && is_foreign(&self.api, &name).await? {
                return Err(ReconcileError::Foreign("EndpointSlice", name));
            }
            let parameters = PatchParams::apply(MANAGER).force();
            let written = writes.write(self.api.patch(&name, &parameters, &Patch::Apply(&wanted))).await?;
            self.ours.put(&name, OwnSlice { uid: written.metadata.uid, slice });
        }
        Ok(())
    }

    /// Deletes what leads to an address besides what [`Self::write`] writes.
    pub(super) async fn delete_others(
        &mut self,
        address: &WantedSlices<'_>,
        from: &Candidates<'_>,
        writes: &mut Writes<'_>,
    ) -> Result<(), ReconcileError> {
        let wanted: Vec<_> = from.slices(address).into_iter().filter_map(|slice| slice.metadata.name).collect();
        let others = self.ours.of(address.name).filter(|(name, _)| !wanted.contains(name));
        let others: Vec<_> = others.map(|(name, ours)| (name.clone(), ours.uid.clone())).collect();
        self.delete(others, writes).await?;
        let theirs = self.theirs.iter().flat_map(|theirs| theirs.of(address.name));
        let theirs: Vec<_> = theirs.map(|(name, theirs)| (name.clone(), theirs.uid.clone())).collect();
        for (name, uid) in theirs {
            writes.delete(&self.api, &name, uid).await?;
            if let Some(theirs) = &mut self.theirs {
                theirs.forget(&name);
            }
        }
        Ok(())
    }

    /// Deletes ours of Service `name` once those of the cluster's controller do their work.
    pub(super) async fn delete_covered(
        &mut self,
        name: &str,
        ports: &Ports,
        writes: &mut Writes<'_>,
    ) -> Result<(), ReconcileError> {
        let selector = format!("{SERVICE}={name},{MANAGED_BY}={CLUSTERS}");
        let theirs = timeout(READ, self.api.list(&ListParams::default().labels(&selector))).await??.items;
        if !slices::covered(self.ours.of(name).map(|(_, ours)| &ours.slice), &theirs, ports) {
            return Ok(());
        }
        let ours: Vec<_> = self.ours.of(name).map(|(name, ours)| (name.clone(), ours.uid.clone())).collect();
        self.delete(ours, writes).await
    }

    async fn delete(
        &mut self,
        ours: Vec<(String, Option<String>)>,
        writes: &mut Writes<'_>,
    ) -> Result<(), ReconcileError> {
        for (name, uid) in ours {
            writes.delete(&self.api, &name, uid).await?;
            self.ours.forget(&name);
        }
        Ok(())
    }
}

/// Whether somebody else's object has this name. Listed, for which the rights are there, and not asked for by name.
async fn is_foreign(api: &Api<EndpointSlice>, name: &str) -> Result<bool, ReconcileError> {
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let there = timeout(READ, api.list_metadata(&named)).await??.items;
    let is_ours = |metadata: &ObjectMeta| {
        let labels = metadata.labels.as_ref();
        labels.is_some_and(|labels| {
            labels.contains_key(OWN_ADDRESS) && labels.get(MANAGED_BY).is_some_and(|by| by == OURS)
        })
    };
    Ok(!there.iter().all(|slice| is_ours(&slice.metadata)))
}
