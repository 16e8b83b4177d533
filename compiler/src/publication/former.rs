//! Ports that carried another protocol until not long ago: callers that cache an answer of before still use them.

use std::time::Instant;

use crate::plan::service::{Plan, Port};

/// A port that carries another protocol since not long ago: callers who remember an answer of before still use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FormerPort {
    pub(crate) port: Port,
    pub(crate) until: Instant,
}

/// The former ports of a Service whose plan was `old` with `former` and is `new`.
pub(crate) fn former(old: &Plan, former: &[FormerPort], new: &Plan, until: Instant) -> Vec<FormerPort> {
    let just = old.ports.iter().map(|port| FormerPort { port: port.clone(), until });
    let mut all: Vec<FormerPort> = Vec::new();
    for it in just.chain(former.iter().cloned()) {
        let same =
            |port: &&Port| port.number == it.port.number && port.protocol.transport() == it.port.protocol.transport();
        let changed = new.ports.iter().find(same).is_some_and(|port| port.protocol != it.port.protocol);
        let there = |other: &FormerPort| other.port.number == it.port.number && other.port.protocol == it.port.protocol;
        if changed && !all.iter().any(there) {
            all.push(it);
        }
    }
    all
}
