//! The first use of a Service: its configuration is asked for, and the request waits a little.
//!
//! A proxy holds routes and endpoints only of the Services that its callers use. What cannot be had in time is reached
//! at its plain address, as if there were no mesh, unless that would go around access control.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use http::HeaderValue;
use maesh_config::{
    ServiceName,
    model::{self, BackendPolicy, Protocol, Scheme},
};

use crate::{access::AccessFacts, loops::Dialable};

use super::{
    ArcSwap, ArcSwapOption, BackendPort, Counts, Locality, NameFacts, Port, ServiceEntry, Shared, WantedResource,
};

/// What became of a port that was asked for.
pub(crate) enum PortLookup {
    /// Here it is.
    Port(Arc<Port>),
    /// The Service has no such port.
    NoPort,
    /// The Service does not exist any more.
    Absent,
    /// Its configuration is not here, and the plain address may not or cannot be used.
    NotSynced,
}

impl ServiceEntry {
    /// A Service of which only the name is known.
    pub(crate) fn new(name: ServiceName, facts: NameFacts) -> Self {
        Self {
            name,
            facts: ArcSwap::from_pointee(facts),
            serving: ArcSwapOption::empty(),
            used: Default::default(),
            wanted: Default::default(),
            wanted_at: Default::default(),
            arrived: Default::default(),
            absent: Default::default(),
            plain: Default::default(),
        }
    }

    /// Coarse time of its last use.
    pub(super) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether a request or stream is in flight. It may last for hours, and what it depends on has to be heard of.
    pub(super) fn is_busy(&self) -> bool {
        self.serving.load().as_ref().is_some_and(|serving| serving.is_busy())
    }

    /// Notes that it is used now.
    pub(crate) fn touch(&self, shared: &Shared) {
        let now = shared.clock.coarse();
        // Workers share this line: write only what changes.
        if self.used.load(Ordering::Relaxed) != now {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// Its configuration was asked for.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Its configuration is here, or known absent.
    pub(super) fn arrived(&self, absent: bool) {
        self.absent.store(absent, Ordering::Release);
        self.arrived.notify_waiters();
    }

    /// Nobody used it for long: the next use asks again.
    pub(super) fn release(&self) {
        self.serving.store(None);
        self.absent.store(false, Ordering::Release);
        self.wanted.store(false, Ordering::Release);
    }
}

/// The port `number` of `called` if its configuration is in force; never waits.
pub(crate) fn ready_port(
    shared: &Shared,
    called: &ServiceEntry,
    number: u16,
    protocol: Protocol,
) -> Option<PortLookup> {
    called.touch(shared);
    let serving = called.serving.load();
    let serving = serving.as_ref()?;
    Some(serving.port(number, protocol).map_or(PortLookup::NoPort, |port| PortLookup::Port(port.clone())))
}

/// The port `number` of `called`, as it is in force; on first use this waits for it at most [`first_use`].
///
/// [`first_use`]: crate::Config::first_use
pub(crate) async fn find_port(
    shared: &Shared,
    called: &Arc<ServiceEntry>,
    number: u16,
    protocol: Protocol,
) -> PortLookup {
    if let Some(found) = ready_port(shared, called, number, protocol) {
        return found;
    }
    fetch(shared, called).await;
    if let Some(found) = ready_port(shared, called, number, protocol) {
        return found;
    }
    if called.absent.load(Ordering::Acquire) {
        return PortLookup::Absent;
    }
    plain(shared, called, number, protocol)
}

/// Asks for the configuration of `called` and waits until it has arrived or its time is up. Callers that come later wait less, and
/// not at all once the first one has waited in vain.
pub(crate) async fn fetch(shared: &Shared, called: &Arc<ServiceEntry>) {
    if !called.wanted.swap(true, Ordering::AcqRel) {
        called.wanted_at.store(u64::from(shared.clock.coarse()), Ordering::Relaxed);
        // A closed channel means that the proxy is ending.
        let _ = shared.wanted.send(WantedResource::Service(called.clone()));
    }
    #[allow(clippy::cast_possible_truncation)]
    let waited = shared.clock.since(called.wanted_at.load(Ordering::Relaxed) as u32);
    let left = shared.config.first_use.saturating_sub(waited);
    let here = async {
        loop {
            let arrived = called.arrived.notified();
            if called.serving.load().is_some() || called.absent.load(Ordering::Acquire) {
                return;
            }
            arrived.await;
        }
    };
    let _ = tokio::time::timeout(left, here).await;
}

/// The plain address of a Service as a backend.
fn plain(shared: &Shared, called: &ServiceEntry, number: u16, protocol: Protocol) -> PortLookup {
    let facts = called.facts.load();
    if shared.mesh.load().access_control.denies() || facts.headless || facts.cluster_ips.is_empty() {
        return PortLookup::NotSynced;
    }
    let Some(named) = facts.ports.iter().find(|port| port.number == number && port.protocol == protocol) else {
        return PortLookup::NoPort;
    };
    let scheme = named.scheme.unwrap_or(Scheme::Http);
    if scheme == Scheme::Https {
        // The certificate cannot be verified without the configuration, and nothing may be sent to who is not verified.
        return PortLookup::NotSynced;
    }
    shared.telemetry.plain_fallback.inc();
    let mut made = called.plain.lock();
    if let Some((_, _, port)) = made.iter().find(|(of, carries, _)| *of == number && *carries == protocol) {
        return PortLookup::Port(port.clone());
    }
    let endpoint = |address| model::Endpoint {
        address: SocketAddr::new(address, number),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        account: None,
        hints: None,
    };
    let dialable = Dialable::new(&shared.config.shared, shared.config.loopback_endpoints);
    let endpoints: Vec<_> = facts.cluster_ips.iter().map(|address| endpoint(*address)).collect();
    let endpoints: Vec<_> = endpoints.into_iter().filter(|it| dialable.allows(it.address)).collect();
    let policy = Arc::new(BackendPolicy { scheme, ..BackendPolicy::default() });
    let own = BackendPort::new(called.name.clone(), policy.clone());
    // Nothing more is known of it, and nothing hints at any of the addresses.
    own.replace(policy, (&endpoints, &AccessFacts::default()), &Locality::default(), shared.clock.coarse());
    let port = Arc::new(Port::new(shared, &called.name, number, protocol, Vec::new(), Arc::new(own)));
    made.push((number, protocol, port.clone()));
    PortLookup::Port(port)
}

impl Port {
    /// A port with the counters that belong to what it carries.
    pub(super) fn new(
        shared: &Shared,
        service: &ServiceName,
        number: u16,
        protocol: Protocol,
        routes: Vec<super::WeightedRoute>,
        own: Arc<BackendPort>,
    ) -> Self {
        let counts = match protocol {
            Protocol::Http => Counts::Http(shared.telemetry.port(service, number)),
            Protocol::Tcp | Protocol::Udp => Counts::Stream,
        };
        let number_text = HeaderValue::from(number);
        Self {
            number,
            protocol,
            leaving: false,
            routes,
            rules: None,
            own,
            own_refuses: false,
            called: Arc::default(),
            runtime: Arc::default(),
            mirror: None,
            fallbacks: Vec::new(),
            number_text,
            counts,
        }
    }
}
