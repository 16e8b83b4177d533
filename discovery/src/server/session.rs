//! One stream: requests in, responses out, and what the subscriber made of them. No input or output of its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use prost::Message;

use super::registry::Acknowledged;
use super::subscription::{InFlight, NAMES, Subscription, TooFarBehind};
use crate::{
    RevisionMark, Store, node,
    update::{Identity, Role},
    xds::{Any, ControlPlane, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Rejection, Resource, Status},
};
use maesh_config::{
    Key, Kind,
    model::{ListenerId, ListenerSet},
};

/// Types that one stream may subscribe to.
const TYPES: usize = 32;

/// What a subscriber made of a resource: in force, or the reason why not.
pub type Verdict = Result<(), Arc<str>>;

/// One stream's state.
#[derive(Debug, Default)]
pub(super) struct Session {
    identity: Option<Identity>,
    /// The subscriber is configured on another stream, to another replica.
    elsewhere: bool,
    ready: bool,
    introduced: bool,
    types: BTreeMap<String, Subscription>,
    nonce: u64,
    listening: ListenerSet,
    failed: Arc<BTreeMap<ListenerId, Arc<str>>>,
    rejected: Arc<BTreeMap<Key, Arc<str>>>,
    changed: bool,
    acknowledged: Acknowledged,
    /// It has got further since this was last taken.
    advanced: bool,
}

/// What a request was, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Interest,
    Ack,
    Nack,
    /// An answer to a response that is not the last one.
    Stale,
}

/// Why a stream cannot go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("the first request of a stream must say which node asks")]
    NoNode,
    #[error("a request must name a type")]
    NoType,
    #[error("more types or names than one subscriber may ask for")]
    TooMuch,
}

/// A response, and the bytes of resources in it.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) response: DeltaDiscoveryResponse,
    pub(super) bytes: usize,
}

impl Session {
    pub(super) fn receive(&mut self, request: DeltaDiscoveryRequest, store: &Store) -> Result<RequestKind, Violation> {
        match &request.node {
            Some(said) => self.set_node(node::read_node(said)),
            None if !self.introduced => return Err(Violation::NoNode),
            None => {}
        }
        if request.type_url.is_empty() {
            return Err(Violation::NoType);
        }
        let Some(subscription) = self.types.get_mut(&request.type_url) else {
            if self.types.len() >= TYPES {
                return Err(Violation::TooMuch);
            }
            if Kind::of_type_url(&request.type_url) == Some(Kind::Listener) {
                // What it says it has, it listens on, before anything is sent on this stream.
                let held = request.initial_resource_versions.keys().map(|name| ListenerId(name.as_str().into()));
                self.listening.extend(held);
                self.changed = true;
            }
            let first = Subscription::first(request.resource_names_subscribe, request.initial_resource_versions);
            if first.names() > 2 * NAMES {
                return Err(Violation::TooMuch);
            }
            self.types.insert(request.type_url, first);
            return Ok(RequestKind::Interest);
        };
        subscription.change(
            request.resource_names_subscribe,
            &request.resource_names_unsubscribe,
            &store.read(),
            &request.type_url,
        );
        if subscription.names() > 2 * NAMES {
            return Err(Violation::TooMuch);
        }
        if request.response_nonce.is_empty() {
            return Ok(RequestKind::Interest);
        }
        let Some(answered) = subscription.in_flight.take_if(|sent| sent.nonce == request.response_nonce) else {
            return Ok(RequestKind::Stale);
        };
        let kind = Kind::of_type_url(&request.type_url);
        Ok(match request.error_detail {
            None => {
                self.record_verdicts(kind, &answered, &HashMap::new());
                RequestKind::Ack
            }
            Some(error) => {
                self.record_verdicts(kind, &answered, &rejections(&error, &answered));
                RequestKind::Nack
            }
        })
    }

    /// The next response that is due for any type.
    pub(super) fn next(&mut self, store: &Store, chunk: usize) -> Result<Option<Push>, TooFarBehind> {
        let tables = store.read();
        let mut held = Vec::new();
        let mut push = None;
        for (type_url, subscription) in &mut self.types {
            let Some(batch) = subscription.next(&tables, type_url, chunk)? else { continue };
            if Kind::of_type_url(type_url) == Some(Kind::Listener) {
                held.extend(batch.held);
            }
            if !batch.complete && batch.resources.is_empty() && batch.removed.is_empty() {
                continue;
            }
            self.nonce += 1;
            let nonce = format!("{:x}", self.nonce);
            subscription.in_flight = Some(InFlight {
                nonce: nonce.clone(),
                sent: batch.resources.iter().map(|(name, _)| name.clone()).collect(),
                removed: batch.removed.clone(),
            });
            let resource = |(name, encoded): (Arc<str>, crate::store::EncodedResource)| Resource {
                version: encoded.version.to_string(),
                resource: Some(Any { type_url: type_url.clone(), value: encoded.bytes }),
                name: name.to_string(),
            };
            let response = DeltaDiscoveryResponse {
                system_version_info: RevisionMark { revision: tables.revision(), complete: batch.complete }.to_string(),
                type_url: type_url.clone(),
                nonce,
                removed_resources: batch.removed.iter().map(ToString::to_string).collect(),
                resources: batch.resources.into_iter().map(resource).collect(),
                control_plane: Some(ControlPlane { identifier: tables.progress().to_string() }),
            };
            push = Some(Push { response, bytes: batch.bytes });
            break;
        }
        let settled = push.is_none() && tables.begun() && !self.types.is_empty() && !self.owed_an_answer();
        if settled {
            self.advanced |= self.acknowledged.reach(tables.revision());
        }
        drop(tables);
        if !held.is_empty() {
            held.into_iter().for_each(|name| self.listens(ListenerId(name), Ok(())));
            self.changed = true;
        }
        Ok(push)
    }

    /// Whether some response was not answered yet.
    pub(super) fn owed_an_answer(&self) -> bool {
        self.types.values().any(|subscription| subscription.in_flight.is_some())
    }

    /// What the controller is to know, if it changed since it was last taken.
    pub(super) fn take_changed(&mut self) -> Option<super::registry::StreamState> {
        std::mem::take(&mut self.changed).then(|| super::registry::StreamState {
            identity: self.identity.clone(),
            elsewhere: self.elsewhere,
            // On a new stream a proxy that lost none of its listeners must not seem to have none for a moment.
            ready: self.ready && !self.listeners_to_come(),
            listening: self.listening.clone(),
            failed: self.failed.clone(),
            rejected: self.rejected.clone(),
            acknowledged: self.acknowledged.clone(),
        })
    }

    /// A proxy that has not said yet which listeners it has.
    fn listeners_to_come(&self) -> bool {
        let proxy = self.identity.as_ref().is_some_and(|identity| identity.role == Role::Proxy);
        proxy && !self.elsewhere && !self.types.contains_key(Kind::Listener.type_url())
    }

    /// Whether it answered for a newer revision since this was last asked.
    pub(super) fn take_advanced(&mut self) -> bool {
        std::mem::take(&mut self.advanced)
    }

    fn set_node(&mut self, said: node::NodeInfo) {
        // Who it is stands for the whole stream; how it is may change.
        if !self.introduced {
            self.introduced = true;
            self.identity = said.identity;
            self.changed = true;
        }
        if let Some(witness) = said.witness {
            self.elsewhere = true;
            (self.listening, self.failed) = Default::default();
            witness.listeners.into_iter().for_each(|(name, verdict)| self.listens(ListenerId(name), verdict));
            self.changed = true;
        }
        if let Some(ready) = said.ready {
            self.changed |= ready != self.ready;
            self.ready = ready;
        }
    }

    /// What became of a listener.
    fn listens(&mut self, id: ListenerId, verdict: Verdict) {
        match verdict {
            Ok(()) => {
                self.forget_failure(&id);
                self.listening.insert(id);
            }
            Err(why) => {
                self.listening.remove(&id);
                Arc::make_mut(&mut self.failed).insert(id, why);
            }
        }
    }

    fn forget_failure(&mut self, id: &ListenerId) {
        // Most proxies share one map with nothing in it.
        if self.failed.contains_key(id) {
            Arc::make_mut(&mut self.failed).remove(id);
        }
    }

    /// Takes the memory of an equal set of listeners in place of its own.
    pub(super) fn share(&mut self, listening: ListenerSet) {
        self.listening.share(&listening);
    }

    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    fn record_verdicts(&mut self, kind: Option<Kind>, answered: &InFlight, rejected: &HashMap<Arc<str>, Arc<str>>) {
        let Some(kind) = kind else { return };
        if kind == Kind::Listener {
            for name in &answered.removed {
                let id = ListenerId(name.clone());
                self.listening.remove(&id);
                self.forget_failure(&id);
            }
            for name in &answered.sent {
                let verdict = rejected.get(name).map_or(Ok(()), |why| Err(why.clone()));
                self.listens(ListenerId(name.clone()), verdict);
            }
            self.changed = true;
        }
        if rejected.is_empty() && self.rejected.is_empty() {
            return;
        }
        let all = Arc::make_mut(&mut self.rejected);
        for name in answered.sent.iter().chain(&answered.removed) {
            all.remove(&Key { kind, name: name.clone() });
        }
        all.extend(rejected.iter().map(|(name, why)| (Key { kind, name: name.clone() }, why.clone())));
        self.changed = true;
    }
}

/// Which of the resources in a response were rejected: those named in the details; without details all of them.
fn rejections(error: &Status, answered: &InFlight) -> HashMap<Arc<str>, Arc<str>> {
    let named = error.details.iter().filter(|detail| detail.type_url == Rejection::TYPE_URL);
    let named: HashMap<Arc<str>, Arc<str>> = named
        .filter_map(|detail| Rejection::decode(&detail.value[..]).ok())
        .filter_map(|it| Some((answered.sent.iter().find(|sent| ***sent == *it.name)?.clone(), it.message.into())))
        .collect();
    if !named.is_empty() {
        return named;
    }
    let message: Arc<str> = error.message.as_str().into();
    answered.sent.iter().map(|name| (name.clone(), message.clone())).collect()
}

#[cfg(test)]
mod tests;
