//! What is counted of datagrams.

use std::{collections::HashMap, sync::Arc};

use maesh_config::ServiceName;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{PortLabels, StreamRefusedLabels};
use crate::reason::Reason;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowEnd {
    /// Both directions were silent for the idle time.
    Idle,
    /// Another flow needed its place.
    Shed,
    /// The endpoint cannot be reached.
    Refused,
    /// The endpoint is none of the Service any more.
    Moved,
    /// The listener was closed, or the proxy ends.
    Closed,
}

impl FlowEnd {
    const ALL: [Self; 5] = [Self::Idle, Self::Shed, Self::Refused, Self::Moved, Self::Closed];

    fn cause(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Shed => "shed",
            Self::Refused => "refused",
            Self::Moved => "moved",
            Self::Closed => "closed",
        }
    }
}

/// The families, and counters of ports that are there.
pub(crate) struct UdpTelemetry {
    flows: Family<PortLabels, Counter>,
    received: Family<PortLabels, Counter>,
    received_bytes: Family<PortLabels, Counter>,
    sent: Family<PortLabels, Counter>,
    sent_bytes: Family<PortLabels, Counter>,
    dropped: Family<StreamRefusedLabels, Counter>,
    ports: Mutex<HashMap<ServiceName, HashMap<u16, Arc<FlowTelemetry>>>>,
    ended: [Counter; FlowEnd::ALL.len()],
    /// Flows that are open.
    pub(crate) open: Gauge,
}

impl UdpTelemetry {
    /// Creates the families and registers them.
    pub(super) fn new(mesh: &mut Registry) -> Self {
        let ended: Family<CauseLabels, Counter> = Family::default();
        let this = Self {
            flows: Family::default(),
            received: Family::default(),
            received_bytes: Family::default(),
            sent: Family::default(),
            sent_bytes: Family::default(),
            dropped: Family::default(),
            ports: Mutex::default(),
            ended: FlowEnd::ALL.map(|end| ended.get_or_create_owned(&CauseLabels { cause: end.cause() })),
            open: Gauge::default(),
        };
        mesh.register("udp_flows", "UDP flows opened, by the Service called", this.flows.clone());
        mesh.register("udp_flows_open", "UDP flows that are open", this.open.clone());
        mesh.register(
            "udp_flows_ended",
            "UDP flows that ended, by cause: silent for timeout-idle (idle), given up for a new flow because of a limit (shed), its endpoint could not be reached (refused) or left the Service (moved), or the port was closed (closed)",
            ended,
        );
        mesh.register(
            "udp_received_datagrams",
            "UDP datagrams carried from callers to endpoints",
            this.received.clone(),
        );
        mesh.register("udp_received_bytes", "Bytes of UDP datagrams from callers", this.received_bytes.clone());
        mesh.register("udp_sent_datagrams", "UDP datagrams carried from endpoints to callers", this.sent.clone());
        mesh.register("udp_sent_bytes", "Bytes of UDP datagrams to callers", this.sent_bytes.clone());
        mesh.register(
            "udp_dropped_datagrams",
            "UDP datagrams dropped by the proxy, by the Service called and the reason",
            this.dropped.clone(),
        );
        this
    }

    /// The counters of one port: the same ones until [`Self::retain`] drops them.
    pub(crate) fn port(&self, service: &ServiceName, port: u16) -> Arc<FlowTelemetry> {
        let mut ports = self.ports.lock();
        let made = ports.entry(service.clone()).or_default().entry(port).or_insert_with(|| {
            let labels = PortLabels::new(service, port);
            Arc::new(FlowTelemetry {
                flows: self.flows.get_or_create_owned(&labels),
                received: self.received.get_or_create_owned(&labels),
                received_bytes: self.received_bytes.get_or_create_owned(&labels),
                sent: self.sent.get_or_create_owned(&labels),
                sent_bytes: self.sent_bytes.get_or_create_owned(&labels),
                labels,
                family: self.dropped.clone(),
                dropped: Mutex::new(Some(HashMap::new())),
            })
        });
        made.clone()
    }

    /// Counts a flow that ended.
    pub(crate) fn ended(&self, end: FlowEnd) {
        self.ended[end as usize].inc();
    }

    /// Drops the series of those ports of a Service that it has no longer.
    pub(super) fn retain(&self, service: &ServiceName, stays: impl Fn(u16) -> bool) {
        let mut ports = self.ports.lock();
        let Some(of_service) = ports.get_mut(service) else { return };
        for (_, gone) in of_service.extract_if(|port, _| !stays(*port)) {
            gone.unregister();
            for family in [&self.flows, &self.received, &self.received_bytes, &self.sent, &self.sent_bytes] {
                family.remove(&gone.labels);
            }
        }
        if of_service.is_empty() {
            ports.remove(service);
        }
    }
}

/// Counters of the datagrams of one port.
pub(crate) struct FlowTelemetry {
    labels: PortLabels,
    family: Family<StreamRefusedLabels, Counter>,
    /// Those that were dropped, by reason; `None` once the port is gone.
    dropped: Mutex<Option<HashMap<Reason, Counter>>>,
    /// Flows opened.
    pub(crate) flows: Counter,
    /// Datagrams from callers, and their bytes.
    pub(crate) received: Counter,
    pub(crate) received_bytes: Counter,
    /// Datagrams to callers, and their bytes.
    pub(crate) sent: Counter,
    pub(crate) sent_bytes: Counter,
}

impl FlowTelemetry {
    /// Counts a datagram that was dropped.
    pub(crate) fn dropped(&self, reason: Reason) {
        if let Some(dropped) = self.dropped.lock().as_mut() {
            dropped.entry(reason).or_insert_with(|| self.family.get_or_create_owned(&self.labels(reason))).inc();
        }
    }

    fn labels(&self, reason: Reason) -> StreamRefusedLabels {
        let PortLabels { service, namespace, port } = self.labels.clone();
        StreamRefusedLabels { service, namespace, port, reason: reason.code() }
    }

    /// Removes the series of dropped datagrams.
    fn unregister(&self) {
        for reason in self.dropped.lock().take().unwrap_or_default().into_keys() {
            self.family.remove(&self.labels(reason));
        }
    }
}
