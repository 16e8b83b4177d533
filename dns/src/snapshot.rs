//! Everything an answer depends on, at one moment.
//!
//! The state task makes a new one for every batch of changes; the listeners load it once per batch of queries and never
//! wait for anything.

use std::{sync::Arc, time::Instant};

use maesh_config::model::Proxy;

use crate::{
    locality::AddressNodes,
    proxies::{Proxies, Target},
    zone::{Addresses, ZoneContent},
};

/// A proxy with everything that people may want to know of it; no answer needs it.
#[derive(Clone, Debug)]
pub(crate) struct ProxyRecord {
    /// What the stream says of it.
    pub(crate) proxy: Arc<Proxy>,
    /// How answers name it.
    pub(crate) target: Target,
    /// Our own probes do not reach it.
    pub(crate) dead: bool,
}

/// What the responder knows.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Names, proxies, workloads and the mesh have been delivered in full once.
    pub(crate) synced: bool,
    /// Counts the changes published; the serial of the zones.
    pub(crate) revision: u32,
    /// When it was made.
    pub(crate) made: Instant,
    /// The zones and what is in them.
    pub(crate) content: ZoneContent,
    /// Where callers are.
    pub(crate) places: AddressNodes,
    /// Where they may be sent.
    pub(crate) proxies: Arc<Proxies>,
    /// The same ones by name, for whoever asks why.
    pub(crate) members: Arc<[ProxyRecord]>,
    /// Addresses of `ns.dns.ZONE`.
    pub(crate) name_server: Arc<Addresses>,
    /// Every name answers the plain addresses, on purpose.
    pub(crate) bypass: bool,
    /// A name that no proxy serves may answer the plain addresses.
    pub(crate) plain_allowed: bool,
    /// Too few proxies are ready, and plain is allowed: every name answers the plain addresses.
    pub(crate) plain_everywhere: bool,
    /// Nodes on which our own probes reach no proxy, sorted: there a fixed address, which the node's kube-proxy leads to
    /// the proxy beside the caller, leads nowhere. While nobody can tell kube-proxy, callers there get plain addresses.
    pub(crate) stranded: Arc<[u32]>,
}

impl Snapshot {
    /// The one before anything is known, made at `now`: it answers SERVFAIL.
    pub(crate) fn empty(now: Instant, name_server: Arc<Addresses>) -> Self {
        Self {
            synced: false,
            revision: 0,
            made: now,
            content: ZoneContent::default(),
            places: AddressNodes::default(),
            proxies: Arc::default(),
            members: Arc::default(),
            name_server,
            bypass: false,
            plain_allowed: false,
            plain_everywhere: false,
            stranded: Arc::default(),
        }
    }
}
