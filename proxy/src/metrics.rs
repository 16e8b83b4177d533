//! Metrics that are made when somebody asks: what policies did, and the state of endpoints and of the configuration.
//!
//! They are read from the run-time state of the ports in force, so a request pays nothing for them, and the series of a port
//! that is gone are gone too.

use std::{
    fmt::{self, Debug},
    sync::{Arc, atomic::Ordering},
};

use maesh_config::{ServiceName, model::Transport};
use maesh_discovery::update::Connected;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::{
    policy::{BackendEvent, BreakerState, CalledEvent},
    state::{BackendPort, Shared},
};

/// Reads the metrics that are made on demand.
pub(crate) struct StateMetrics {
    shared: Arc<Shared>,
    connected: Connected,
}

impl StateMetrics {
    /// Of this proxy, whose stream to the controller is `connected`.
    pub(crate) fn new(shared: Arc<Shared>, connected: Connected) -> Self {
        Self { shared, connected }
    }
}

impl Debug for StateMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMetrics").finish_non_exhaustive()
    }
}

/// Labels of a port, and one more where the family has one.
struct Labels<'a> {
    service: &'a ServiceName,
    port: (u16, Transport),
    more: Option<(&'static str, &'static str)>,
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("service", &*self.service.name).encode(encoder.encode_label())?;
        ("namespace", &*self.service.namespace).encode(encoder.encode_label())?;
        let (number, transport) = self.port;
        ("port", number).encode(encoder.encode_label())?;
        // A Service may have the same number for both.
        if transport == Transport::Udp {
            ("transport", "udp").encode(encoder.encode_label())?;
        }
        self.more.map_or(Ok(()), |more| more.encode(encoder.encode_label()))
    }
}

/// One family of counters by event: its name, what it counts, and for each event the label that tells it from the others.
struct Events<E: 'static> {
    name: &'static str,
    help: &'static str,
    /// Name of the label; none for a family of one event.
    label: &'static str,
    events: &'static [(E, &'static str)],
}

const CALLED: [Events<CalledEvent>; 5] = [
    Events {
        name: "proxy_retries",
        help: "Requests sent again, by cause: the connection was not made (connect), or ended before the response began (closed), or the annotation retry-on asks for it (policy). TCP connections made again have the cause connect",
        label: "cause",
        events: &[
            (CalledEvent::RetriedConnect, "connect"),
            (CalledEvent::RetriedClosed, "closed"),
            (CalledEvent::RetriedPolicy, "policy"),
        ],
    },
    Events {
        name: "proxy_hedges",
        help: "Second attempts that were made because the first one was slow",
        label: "",
        events: &[(CalledEvent::Hedged, "")],
    },
    Events {
        name: "proxy_hedges_won",
        help: "Second attempts that answered before the first one",
        label: "",
        events: &[(CalledEvent::HedgeWon, "")],
    },
    Events {
        name: "proxy_mirrored",
        help: "Copies of requests for the annotation mirror, by outcome: `sent`, or `left_out` because too many were under way, the body was too large, the mirror has no endpoint or place, or access control does not admit the caller to it",
        label: "outcome",
        events: &[(CalledEvent::Mirrored, "sent"), (CalledEvent::MirrorLeftOut, "left_out")],
    },
    Events {
        name: "proxy_faults",
        help: "Requests that were delayed (fault-delay) or refused (fault-abort) on purpose",
        label: "fault",
        events: &[(CalledEvent::Delayed, "delay"), (CalledEvent::Aborted, "abort")],
    },
];

const BACKEND: [Events<BackendEvent>; 3] = [
    Events {
        name: "proxy_backend_attempts",
        help: "Attempts of requests on the endpoints of a Service, by outcome: the class of the status that the endpoint answered (2xx), or failed, without an answer. Those of all Services that send to it count, so this tells the backends of routes and splits apart. Retries, second attempts and copies count as well. The status of gRPC is not looked at",
        label: "outcome",
        events: &[
            (BackendEvent::Answered1xx, "1xx"),
            (BackendEvent::Answered2xx, "2xx"),
            (BackendEvent::Answered3xx, "3xx"),
            (BackendEvent::Answered4xx, "4xx"),
            (BackendEvent::Answered5xx, "5xx"),
            (BackendEvent::Failed, "failed"),
        ],
    },
    Events {
        name: "proxy_ejections",
        help: "Endpoints left out for a while because they failed several times in a row",
        label: "",
        events: &[(BackendEvent::Ejected, "")],
    },
    Events {
        name: "proxy_concurrency_refused",
        help: "Requests refused because of the annotation concurrency, by cause: the caller has its part of all places (caller), no place is free (full), nor in the queue (queue_full), or none became free in time (queue_timeout)",
        label: "cause",
        events: &[
            (BackendEvent::CallerFull, "caller"),
            (BackendEvent::Full, "full"),
            (BackendEvent::QueueFull, "queue_full"),
            (BackendEvent::WaitedTooLong, "queue_timeout"),
        ],
    },
];

type Ports<T> = [(ServiceName, (u16, Transport), Arc<T>)];

/// Writes a family of counters. A series appears once there is something to count, as those of requests do.
fn counters<T, E: Copy>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Events<E>,
    ports: &Ports<T>,
    count: impl Fn(&T, E) -> u64,
) -> fmt::Result {
    let mut out = encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
    for (service, port, of) in ports {
        for (event, value) in family.events {
            let count = count(of, *event);
            if count > 0 {
                let more = (!family.label.is_empty()).then_some((family.label, *value));
                counter(&mut out, &Labels { service, port: *port, more }, count)?;
            }
        }
    }
    Ok(())
}

fn counter(out: &mut MetricEncoder<'_>, labels: &Labels<'_>, count: u64) -> fmt::Result {
    out.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)
}

/// Writes a family of gauges: what `read` says of each port, by the value of the label `label`.
fn gauges<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    label: &'static str,
    ports: &Ports<BackendPort>,
    read: impl Fn(&BackendPort) -> Option<[(&'static str, u64); N]>,
) -> fmt::Result {
    let mut out = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (service, port, backend) in ports {
        for (value, number) in read(backend).into_iter().flatten() {
            let more = (!label.is_empty()).then_some((label, value));
            out.encode_family(&Labels { service, port: *port, more })?.encode_gauge(&number)?;
        }
    }
    Ok(())
}

impl StateMetrics {
    fn backends(&self, encoder: &mut DescriptorEncoder<'_>, now: u32) -> fmt::Result {
        let backends = self.shared.runtime.backends();
        for family in &BACKEND {
            counters(encoder, family, &backends, |backend, event| backend.counts.get(event))?;
        }
        let has_breaker = |backend: &BackendPort| backend.upstreams.load().policy.breaker.is_some();
        let help = "Times that the circuit breaker went over to a state: open, recovering or closed";
        let mut out = encoder.encode_descriptor("proxy_breaker_transitions", help, None, MetricType::Counter)?;
        for (service, port, backend) in backends.iter().filter(|(_, _, backend)| has_breaker(backend)) {
            let (_, went) = backend.breaker.seen(now);
            for (to, count) in [("open", went.open), ("recovering", went.recovering), ("closed", went.closed)] {
                counter(&mut out, &Labels { service, port: *port, more: Some(("to", to)) }, count)?;
            }
        }
        let state = |backend: &BackendPort| {
            let (state, _) = backend.breaker.seen(now);
            let number = match state {
                BreakerState::Closed => 0,
                BreakerState::Recovering { .. } => 1,
                BreakerState::Open { .. } => 2,
            };
            has_breaker(backend).then_some([("", number)])
        };
        let breaker = ("proxy_breaker_state", "State of the circuit breaker: 0 closed, 1 recovering, 2 open");
        gauges(encoder, breaker, "", &backends, state)?;
        let waiting =
            ("proxy_requests_waiting", "Requests that wait for a place, where the annotation concurrency has a queue");
        gauges(encoder, waiting, "", &backends, |backend| {
            let has_queue = backend.upstreams.load().policy.queue.is_some();
            has_queue.then(|| [("", backend.queue.waiting().into())])
        })?;
        let active = (
            "proxy_backend_in_flight",
            "Requests, TCP connections and UDP flows in flight to the endpoints of a Service",
        );
        gauges(encoder, active, "", &backends, |backend| Some([("", backend.seen(now).in_flight.into())]))?;
        let endpoints = (
            "proxy_endpoints",
            "Endpoints of a Service that this proxy uses, and those of them that are ejected at the moment",
        );
        gauges(encoder, endpoints, "state", &backends, |backend| {
            let seen = backend.seen(now);
            Some([("usable", seen.usable as u64), ("ejected", seen.ejected as u64)])
        })?;
        let (http1, http2) = backends.iter().fold((0, 0), |(http1, http2), (_, _, backend)| {
            let (more1, more2) = backend.kept_connections();
            (http1 + more1 as u64, http2 + more2 as u64)
        });
        let help = "Connections to endpoints that are kept for further requests: over HTTP/1.1 those that wait for one, over HTTP/2 all";
        let mut out = encoder.encode_descriptor("proxy_upstream_connections_kept", help, None, MetricType::Gauge)?;
        for (protocol, count) in [("http1", http1), ("http2", http2)] {
            out.encode_family(&[("protocol", protocol)])?.encode_gauge(&count)?;
        }
        Ok(())
    }

    fn called(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let called = self.shared.runtime.called();
        for family in &CALLED {
            counters(encoder, family, &called, |runtime, event| runtime.counts.get(event))?;
        }
        let budget = Events {
            name: "proxy_retry_budget_exhausted",
            help: "Requests that were not sent again, or not a second time beside a slow attempt, because the retry budget was used up",
            label: "",
            events: &[((), "")],
        };
        counters(encoder, &budget, &called, |runtime, ()| runtime.budget.refused())
    }

    fn configuration(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let age = self.shared.clock.seconds().saturating_sub(self.shared.updated.load(Ordering::Relaxed));
        for (name, help, number) in [
            ("proxy_config_age_seconds", "Time since the configuration last changed", age),
            (
                "proxy_controller_connected",
                "1 while the stream to a controller is up, else 0: the proxy goes on with the configuration that it has",
                u64::from(*self.connected.borrow()),
            ),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&number)?;
        }
        Ok(())
    }
}

impl Collector for StateMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.shared.clock.coarse();
        self.called(&mut encoder)?;
        self.backends(&mut encoder, now)?;
        self.configuration(&mut encoder)
    }
}
