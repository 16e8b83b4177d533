//! Kinds that a cluster need not serve: absent, until somebody installs them, and gone once they are removed.
//!
//! Nothing waits for such a kind: while it is absent, it has no objects. It is asked for every few seconds, in each of the
//! versions that can be read, the best one first.

use std::time::Duration;

use kube::{Api, Client};
use maesh_compiler::kinds::Registration;

use super::{
    follow::{Ended, FIRST_PAUSE, Follow, LONGEST_PAUSE, succeeded},
    object::{Raw, ServedKind},
};
use crate::{api::ApiError, source::Event};

/// The way to a kind, in the version at this place of its registration.
pub(super) fn api(client: &Client, kind: &'static Registration, version_at: usize) -> Api<Raw> {
    let version = kind.versions.get(version_at).copied().unwrap_or("v1");
    Api::all_with(client.clone(), &ServedKind { kind, version })
}

/// The way to a kind, in one namespace.
pub(super) fn api_in(client: &Client, kind: &'static Registration, namespace: &str) -> Api<Raw> {
    let version = kind.versions.first().copied().unwrap_or("v1");
    Api::namespaced_with(client.clone(), namespace, &ServedKind { kind, version })
}

impl Follow {
    /// Whether `error` says that the kind is absent, in the version that was asked for, and it may be.
    pub(super) fn is_not_served(&self, error: &kube::Error) -> bool {
        !self.registration.always_served && ApiError::Missing.is(error)
    }

    /// Goes on with the next version. After the last one, the kind has no objects. Returns how long to wait.
    pub(super) async fn not_served(&mut self) -> Result<Duration, Ended> {
        let versions = self.registration.versions.len().max(1);
        self.version_at = (self.version_at + 1) % versions;
        self.api = api(&self.client, self.registration, self.version_at);
        (self.version, self.confirm_at) = (None, None);
        self.not_served = self.not_served.saturating_add(1);
        self.watches.change(self.kind, succeeded);
        if self.not_served == versions {
            self.absent().await?;
        }
        if self.version_at > 0 {
            return Ok(FIRST_PAUSE);
        }
        // Kinds and replicas do not ask in step.
        Ok(LONGEST_PAUSE.mul_f64(rand::random_range(0.75..=1.0)))
    }

    async fn absent(&mut self) -> Result<(), Ended> {
        let group = self.registration.group;
        tracing::info!(kind = %self.registration.name, group, "the cluster does not serve this kind; looking again every few seconds");
        self.synced = true;
        self.watches.change(self.kind, |state| {
            state.watch.synced = true;
            state.watch.bad_objects = 0;
            state.bad.clear();
            state.problem = None;
        });
        self.send(vec![Event::Reset(self.kind, Vec::new()), Event::Synced(self.kind)]).await?;
        self.tell_problems().await
    }
}
