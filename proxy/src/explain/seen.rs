//! What an explanation says. Fields are added, never renamed or taken away: another version of the command reads it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::PolicySeen;
use crate::reason::Reason;

/// What would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The host as it is looked up.
    pub host: String,
    /// The proxy takes new work.
    pub ready: bool,
    /// Names and listeners are complete; before, an unknown name is `not_synced`.
    pub synced: bool,
    /// The Service that the host means, `namespace/name`.
    pub service: Option<String>,
    /// Whether who calls is asked for: `on`, or `dry-run`, which denies nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_control: Option<String>,
    /// The ServiceAccount that the caller counts as, `namespace/name`; `None` for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What the proxy answers by itself instead, where it does so for every port.
    pub refusal: Option<Refusal>,
    /// What becomes of it on each port asked about.
    pub ports: Vec<PortSeen>,
}

/// An answer that the proxy makes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The code in `x-maesh-reason`.
    pub reason: String,
    /// The status for callers of HTTP.
    pub status: u16,
    /// One sentence.
    pub explanation: String,
}

/// One port of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSeen {
    /// The Service's port number.
    pub port: u16,
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
    /// The port number that the proxy should listen on.
    pub listen: u16,
    /// The listener that takes it; `None` while none is open.
    pub listener: Option<ListenerSeen>,
    /// Whether the routes and endpoints of the Service are here.
    pub held: ServiceState,
    /// Policies of every request to it, where they differ from a port without annotations.
    #[serde(default)]
    pub policies: Vec<PolicySeen>,
    /// Where requests go, in order of precedence. The first one that matches has them all.
    pub routes: Vec<RouteSeen>,
    /// Which of `routes`, counted from 0, takes the request or connection that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<usize>,
    /// Why that cannot be said, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<String>,
    /// What the proxy answers by itself instead.
    pub refusal: Option<Refusal>,
}

/// An open listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSeen {
    /// Its identity: `shared/8080/tcp`.
    pub id: String,
    /// The addresses it is bound to.
    pub addresses: Vec<SocketAddr>,
    /// Several Services share it, and the request says whose it is.
    pub shared: bool,
}

/// Whether the configuration of a Service is in the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// It is in force.
    InForce,
    /// Nobody called it through this proxy lately: it is asked for at the next call.
    Unused,
    /// It was asked for and has not arrived.
    Awaited,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSeen {
    /// It is the Service itself, because no rule says otherwise.
    pub own: bool,
    /// What a request or connection has to be, where it has to be anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Where it sends to.
    pub backends: Vec<BackendSeen>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSeen {
    /// The Service, `namespace/name`; `None` for one that does not exist.
    pub service: Option<String>,
    /// Its share, relative to its siblings.
    pub weight: u32,
    /// The protocol spoken to its endpoints.
    pub scheme: Option<String>,
    /// Whom endpoints have to be, if that is `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSeen>,
    /// How one is picked, as the annotation `balance` has it: `p2c`, `hash:source`.
    pub balance: Option<String>,
    /// Policies of what is sent to it, where they differ from a port without annotations.
    #[serde(default)]
    pub policies: Vec<PolicySeen>,
    /// Number of endpoints that may be used now.
    pub usable: usize,
    /// Only endpoints on the caller's node are used.
    pub local_only: bool,
    /// The first of them, 50 at most.
    pub endpoints: Vec<EndpointSeen>,
    /// Whether the caller is admitted; `None` where nobody asks, or the answer depends on a request that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSeen>,
    /// Where requests go that none of its endpoints can be used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSeen>,
}

/// The fallback of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackSeen {
    /// The Service, `namespace/name`.
    pub service: String,
    /// Number of its endpoints that may be used now.
    pub usable: usize,
    /// Whether the caller is admitted, as for the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSeen>,
}

/// What access control says of a caller at a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessSeen {
    /// It may reach some ServiceAccount that the endpoints run as.
    pub admitted: bool,
    /// How many of the usable endpoints it may reach.
    pub endpoints: usize,
    /// The TrafficTargets that say so, `namespace/name`.
    pub targets: Vec<String>,
}

/// What certificates of endpoints are verified against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsSeen {
    /// The name that they must have.
    pub server_name: String,
    /// Who may have issued them: `system roots`, `2 certificates`, or none and why.
    pub roots: String,
}

/// One endpoint that may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSeen {
    /// Address and target port.
    pub address: SocketAddr,
    /// Node it runs on.
    pub node: Option<String>,
    /// It is among those that this caller's requests are spread over.
    pub chosen: bool,
    /// Requests in flight from this proxy.
    pub in_flight: u32,
    /// Why the last TLS handshake with it failed, and what to do, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_failure: Option<String>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason: reason.code().to_owned(),
            status: reason.status().as_u16(),
            explanation: reason.explanation().to_owned(),
        }
    }
}
