//! A subscriber's identity as the `node` of its requests.

use std::{collections::BTreeMap, sync::Arc};

use super::Verdict;
use crate::{
    update::{Identity, Role},
    xds::{Node, Struct, Value},
};
use maesh_config::NodeName;

/// Group name of all our subscribers.
const CLUSTER: &str = "maesh";

/// The node that says who `identity` is and whether it takes new work.
pub(super) fn node(identity: &Identity, ready: bool) -> Node {
    let role = match identity.role {
        Role::Dns => "dns",
        Role::Proxy => "proxy",
    };
    let mut fields = BTreeMap::from([
        ("role".to_owned(), Value::from(role.to_owned())),
        ("version".to_owned(), Value::from(identity.version.to_string())),
        ("addresses".to_owned(), Value::texts(identity.addresses.iter().map(ToString::to_string))),
        ("ready".to_owned(), Value::from(ready)),
    ]);
    if let Some(name) = &identity.node {
        fields.insert("node".to_owned(), Value::from(name.to_string()));
    }
    Node {
        id: identity.id.to_string(),
        cluster: CLUSTER.to_owned(),
        metadata: Some(Struct { fields }),
        user_agent_name: "maesh".to_owned(),
        user_agent_version: identity.version.to_string(),
    }
}

/// What a subscriber says on a stream that is there to say it, beside the one that it is configured by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Witness {
    /// Listeners that are in force, or the reason why not.
    pub(super) listeners: BTreeMap<Arc<str>, Verdict>,
}

/// The node of such a stream.
pub(super) fn witness(identity: &Identity, ready: bool, witness: &Witness) -> Node {
    let mut node = node(identity, ready);
    let Some(metadata) = &mut node.metadata else { return node };
    let (listening, failed): (Vec<_>, Vec<_>) = witness.listeners.iter().partition(|(_, verdict)| verdict.is_ok());
    let listening = listening.into_iter().map(|(id, _)| id.to_string());
    // Each with its reason after it.
    let failed = failed.into_iter().filter_map(|(id, why)| Some([id.to_string(), why.clone().err()?.to_string()]));
    metadata.fields.insert("listening".to_owned(), Value::texts(listening));
    metadata.fields.insert("failed".to_owned(), Value::texts(failed.flatten()));
    node
}

/// What the `Node` of a discovery request says about the subscriber that sent it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NodeInfo {
    /// Who it is; `None` when it has none of our roles (an Envoy, a newer role).
    pub(super) identity: Option<Identity>,
    /// Whether it takes new work; `None` when it does not say.
    pub(super) ready: Option<bool>,
    /// What it puts in force elsewhere, where the stream is there to say that.
    pub(super) witness: Option<Witness>,
}

/// Reads a node. What is not understood in it is left out, because it may be another program's or a newer version's.
pub(super) fn read_node(node: &Node) -> NodeInfo {
    let field = |name: &str| node.metadata.as_ref().and_then(|metadata| metadata.fields.get(name));
    let text = |name: &str| field(name).and_then(Value::as_text);
    let role = match text("role") {
        Some("dns") => Some(Role::Dns),
        Some("proxy") => Some(Role::Proxy),
        _ => None,
    };
    let identity = role.map(|role| Identity {
        role,
        id: node.id.as_str().into(),
        node: text("node").map(NodeName::from),
        addresses: field("addresses")
            .map(|list| list.as_texts().filter_map(|text| text.parse().ok()).collect())
            .unwrap_or_default(),
        version: text("version").unwrap_or_default().into(),
    });
    let witness = field("listening").map(|listening| {
        let mut listeners: BTreeMap<Arc<str>, Verdict> = listening.as_texts().map(|id| (id.into(), Ok(()))).collect();
        let failed: Vec<&str> = field("failed").map(|list| list.as_texts().collect()).unwrap_or_default();
        let pairs = failed.chunks_exact(2);
        listeners.extend(pairs.filter_map(|pair| Some((Arc::from(*pair.first()?), Err(Arc::from(*pair.get(1)?))))));
        Witness { listeners }
    });
    NodeInfo { identity, ready: field("ready").and_then(Value::as_bool), witness }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn an_identity_survives_the_wire() {
        let identity = Identity {
            role: Role::Proxy,
            id: "maesh-proxy-7xkq2".into(),
            node: Some("n1".into()),
            addresses: vec!["10.1.2.3".parse().unwrap(), "fd00::7".parse().unwrap()],
            version: "0.1.0".into(),
        };
        let bytes = node(&identity, true).encode_to_vec();
        let read = read_node(&Node::decode(&bytes[..]).unwrap());
        assert_eq!(read, NodeInfo { identity: Some(identity.clone()), ready: Some(true), witness: None });

        let listeners =
            BTreeMap::from([("shared/80/tcp".into(), Ok(())), ("shared/81/tcp".into(), Err("taken".into()))]);
        let said = Witness { listeners };
        let bytes = witness(&identity, false, &said).encode_to_vec();
        let read = read_node(&Node::decode(&bytes[..]).unwrap());
        assert_eq!(read, NodeInfo { identity: Some(identity), ready: Some(false), witness: Some(said) });
    }

    #[test]
    fn another_programs_node_has_no_identity_of_ours() {
        let node = Node { id: "envoy-1".to_owned(), ..Node::default() };
        assert_eq!(read_node(&node), NodeInfo { identity: None, ready: None, witness: None });
    }
}
