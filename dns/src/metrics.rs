//! Counts what is asked and answered.
//!
//! Each thread that answers has counters of its own, which nobody else writes, so counting is a plain addition in a
//! cache line that stays where it is. They are summed when somebody reads the metrics.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use maesh_discovery::tls::ServerTls;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    answer::{Action, AnswerSource, Facts, Rcode, Transport},
    locality::CallerLookup,
    snapshot::Snapshot,
};

/// Types counted by name, and what is left.
const KINDS: [(u16, &str); 7] = [(1, "A"), (28, "AAAA"), (33, "SRV"), (16, "TXT"), (6, "SOA"), (2, "NS"), (255, "ANY")];
const TRANSPORTS: [(Transport, &str); 3] = [(Transport::Udp, "udp"), (Transport::Tcp, "tcp"), (Transport::Tls, "tls")];

/// One writer's counters.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    /// By transport and type; after the known types come others, then unreadable questions.
    queries: [[AtomicU64; KINDS.len() + 2]; TRANSPORTS.len()],
    rcodes: [AtomicU64; Rcode::ALL.len()],
    found: [AtomicU64; CallerLookup::ALL.len()],
    named: [AtomicU64; AnswerSource::ALL.len()],
    truncated: AtomicU64,
    dropped: AtomicU64,
}

/// Adds one to a counter that only the caller writes, which needs no locked instruction.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// Adds one to what `value` has in `counters`, which are in the order of `all`.
fn add_to<T: PartialEq, N>(counters: &[AtomicU64], all: &[(T, N)], value: &T) {
    if let Some(counter) = all.iter().position(|(have, _)| have == value).and_then(|at| counters.get(at)) {
        add(counter);
    }
}

impl Counters {
    /// Counts one query. Only one thread at a time may call this.
    pub(crate) fn count(&self, transport: Transport, action: Action) {
        let Action::Reply(Facts { kind, rcode, found, named, truncated }) = action else { return add(&self.dropped) };
        let kind = match kind {
            Some(kind) => KINDS.iter().position(|(have, _)| *have == kind).unwrap_or(KINDS.len()),
            None => KINDS.len() + 1,
        };
        add(&self.queries[transport as usize][kind]);
        add_to(&self.rcodes, &Rcode::ALL, &rcode);
        if let Some(found) = found {
            add_to(&self.found, &CallerLookup::ALL, &found);
        }
        if let Some(named) = named {
            add_to(&self.named, &AnswerSource::ALL, &named);
        }
        if truncated {
            add(&self.truncated);
        }
    }
}

/// Connections over TCP and TLS, counted by whoever handles them.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    tcp: AtomicU64,
    tls: AtomicU64,
    /// Closed to make room for another one.
    pub(crate) crowded_out: AtomicU64,
    /// Closed because nothing whole came, or nothing was taken, for too long.
    pub(crate) idle: AtomicU64,
    /// Closed because the TLS handshake failed or took too long.
    pub(crate) handshake: AtomicU64,
    /// Accepting failed.
    pub(crate) failed: AtomicU64,
}

impl Connections {
    /// Open now.
    pub(crate) fn open(&self, transport: Transport) -> &AtomicU64 {
        if transport == Transport::Tls { &self.tls } else { &self.tcp }
    }
}

/// All counters of a responder.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    writers: Mutex<Vec<Arc<Counters>>>,
    connections: Connections,
    probed_dead: AtomicU64,
    /// Whether DNS over TLS is configured.
    over_tls: AtomicBool,
    /// Its certificate, once there was one that can be used.
    certificate: OnceLock<ServerTls>,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

impl Metrics {
    /// Counters that are read through `registry`.
    pub(crate) fn new(snapshot: Arc<ArcSwap<Snapshot>>, registry: &mut Registry) -> Self {
        let metrics = Self(Arc::new(Shared {
            writers: Mutex::default(),
            connections: Connections::default(),
            probed_dead: AtomicU64::default(),
            over_tls: AtomicBool::default(),
            certificate: OnceLock::new(),
            snapshot,
        }));
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    /// New counters for one writer.
    pub(crate) fn writer(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.0.writers.lock().push(counters.clone());
        counters
    }

    /// Counters of connections.
    pub(crate) fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// From now on there is DNS over TLS, if there is a certificate.
    pub(crate) fn expect_certificate(&self) {
        self.0.over_tls.store(true, Relaxed);
    }

    /// Sets what DNS over TLS serves with, now and after changes.
    pub(crate) fn set_certificate(&self, certificate: ServerTls) {
        // There is one at most.
        let _ = self.0.certificate.set(certificate);
    }

    /// Sets how many proxies our own probes do not reach.
    pub(crate) fn set_probed_dead(&self, count: usize) {
        self.0.probed_dead.store(count as u64, Relaxed);
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let writers = self.0.writers.lock().clone();
        let sum = |pick: &dyn Fn(&Counters) -> &AtomicU64| -> u64 {
            writers.iter().map(|counters| pick(counters).load(Relaxed)).sum()
        };
        let mut out = Encoder(&mut encoder);

        let names = KINDS.iter().map(|(_, name)| *name).chain(["other", "unreadable"]).enumerate();
        out.family(
            "maesh_dns_queries",
            "DNS queries, by transport and record type",
            TRANSPORTS.iter().enumerate().flat_map(|(t, (_, transport))| {
                let sum = &sum;
                names.clone().map(move |(k, kind)| {
                    (vec![("transport", *transport), ("type", kind)], sum(&|counters| &counters.queries[t][k]))
                })
            }),
        )?;
        let named = |all: &[(&'static str, u64)], label: &'static str| -> Vec<_> {
            all.iter().map(|(name, value)| (vec![(label, *name)], *value)).collect()
        };
        let rcodes: Vec<_> = (0..).zip(Rcode::ALL).map(|(n, (_, name))| (name, sum(&|c| &c.rcodes[n]))).collect();
        out.family("maesh_dns_responses", "DNS responses, by response code", named(&rcodes, "rcode").into_iter())?;
        let found: Vec<_> = (0..).zip(CallerLookup::ALL).map(|(n, (_, name))| (name, sum(&|c| &c.found[n]))).collect();
        out.family(
            "maesh_dns_locality",
            "Responses that depend on the caller's node, by how that node was determined: the EDNS client subnet, the source address, or not at all",
            named(&found, "found").into_iter(),
        )?;
        let who: Vec<_> = (0..).zip(AnswerSource::ALL).map(|(n, (_, name))| (name, sum(&|c| &c.named[n]))).collect();
        out.family("maesh_dns_named", "Responses for names of Services, by whose addresses they contain: proxies (local, spread, last_known, fixed), the ClusterIP (plain, fail_to_plain), or none (withheld)", named(&who, "who").into_iter())?;
        out.counter(
            "maesh_dns_truncated",
            "Responses that were truncated because they exceed the size that the client accepts",
            sum(&|c| &c.truncated),
        )?;
        out.counter(
            "maesh_dns_dropped",
            "Packets dropped without a response because they are not DNS queries",
            sum(&|c| &c.dropped),
        )?;

        let Shared { connections, probed_dead, snapshot, over_tls, certificate, .. } = &*self.0;
        out.gauge("maesh_dns_connections", "Open TCP connections", connections.tcp.load(Relaxed))?;
        out.gauge("maesh_dns_tls_connections", "Open connections of DNS over TLS", connections.tls.load(Relaxed))?;
        let closed = [
            ("crowded_out", connections.crowded_out.load(Relaxed)),
            ("idle", connections.idle.load(Relaxed)),
            ("handshake_failed", connections.handshake.load(Relaxed)),
            ("accept_failed", connections.failed.load(Relaxed)),
        ];
        out.family(
            "maesh_dns_connections_closed",
            "TCP and TLS connections that dns closed, or failed to accept, by reason",
            named(&closed, "reason").into_iter(),
        )?;
        let expires =
            certificate.get().and_then(|tls| tls.current().validity().until()).map_or(0, Timestamp::as_second);
        out.optional_gauge(
            "maesh_dns_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of DNS over TLS expires, in seconds since 1970: of its chain, the certificate that \
             expires first. 0 while there is none that can be used, no value without DNS over TLS",
            over_tls.load(Relaxed).then_some(expires),
        )?;
        out.gauge(
            "maesh_dns_proxies_unreachable",
            "Proxies left out of responses because they do not answer the probes of dns",
            probed_dead.load(Relaxed),
        )?;

        let snapshot = snapshot.load();
        out.gauge(
            "maesh_dns_synced",
            "1 once the controller has sent the whole configuration, else 0",
            u64::from(snapshot.synced),
        )?;
        out.gauge(
            "maesh_dns_revision",
            "Number of the configuration in force, which is the serial of the zones' SOA record",
            snapshot.revision.into(),
        )?;
        let age = Instant::now().saturating_duration_since(snapshot.made).as_secs();
        out.gauge("maesh_dns_snapshot_age_seconds", "Time since the configuration last changed", age)?;
        out.gauge("maesh_dns_services", "Services that have a mesh name", snapshot.content.services.len() as u64)?;
        out.gauge("maesh_dns_addresses", "Addresses whose pod or node is known", snapshot.places.len() as u64)?;
        out.gauge("maesh_dns_proxies", "Proxies that the controller has reported", snapshot.proxies.known() as u64)?;
        out.gauge(
            "maesh_dns_proxies_ready",
            "Proxies that the controller has reported as ready",
            snapshot.proxies.ready().len() as u64,
        )
    }
}

/// Writes families in the exposition format.
struct Encoder<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Encoder<'_, '_> {
    fn family<'v>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Vec<(&'v str, &'v str)>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.optional_gauge(name, help, Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn optional_gauge(&mut self, name: &str, help: &str, value: Option<i64>) -> fmt::Result {
        let gauge = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| ConstGauge::new(value).encode(gauge))
    }
}
