//! What another Service must be to get requests: there, in the mesh, and with a port of the same transport.

use maesh_config::{ServiceName, model::Protocol};

use super::service::left_out;
use crate::{
    kinds::{Service, Transport},
    step::Step,
};

/// Why a port cannot get requests of another Service.
pub(super) struct Unusable {
    /// What it is: `Service shop/web, which does not exist`.
    pub(super) what: String,
    /// What to do: `Create it`.
    pub(super) next: &'static str,
}

/// Why this port cannot get what a port that carries `protocol` is sent; `None` if it can.
pub(super) fn unusable(to: &ServiceName, port: u16, protocol: Protocol, step: &Step<'_>) -> Option<Unusable> {
    let say = |what: String, next| Some(Unusable { what, next });
    let Some(there) = step.view.service(to) else {
        return say(format!("Service {to}, which does not exist"), "Create it");
    };
    if let Some(why) = left_out(there, step.config) {
        return say(format!("Service {to}, which is not in the mesh: {}", why.why()), "Change that");
    }
    if has_port(there, port, protocol) {
        return None;
    }
    let (wanted, other) = if protocol == Protocol::Udp { ("UDP", "TCP") } else { ("TCP", "UDP") };
    match there.ports.iter().any(|there| there.number.port() == Some(port)) {
        true => say(format!("port {port} of Service {to}, which carries {other}, not {wanted}"), "Add the port to it"),
        false => say(format!("port {port} of Service {to}, which has no such port"), "Add the port to it"),
    }
}

/// Whether a Service has this port for the transport of `protocol`.
pub(super) fn has_port(service: &Service, number: u16, protocol: Protocol) -> bool {
    let udp = protocol == Protocol::Udp;
    service.ports.iter().any(|port| port.number.port() == Some(number) && (port.transport == Transport::Udp) == udp)
}
