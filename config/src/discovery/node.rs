//! A subscriber's identity as the `node` of its requests.

use std::collections::BTreeMap;

use crate::{
    NodeName,
    update::{Identity, Role},
    wire::xds::{Node, Struct, Value},
};

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

/// What a node says of its sender.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Introduced {
    /// Who it is; `None` when it has none of our roles (an Envoy, a newer role).
    pub(super) identity: Option<Identity>,
    /// Whether it takes new work; `None` when it does not say.
    pub(super) ready: Option<bool>,
}

/// Reads a node. What is not understood in it is left out, because it may be another program's or a newer version's.
pub(super) fn introduced(node: &Node) -> Introduced {
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
    Introduced { identity, ready: field("ready").and_then(Value::as_bool) }
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
        let read = introduced(&Node::decode(&bytes[..]).unwrap());
        assert_eq!(read, Introduced { identity: Some(identity), ready: Some(true) });
    }

    #[test]
    fn another_programs_node_has_no_identity_of_ours() {
        let node = Node { id: "envoy-1".to_owned(), ..Node::default() };
        assert_eq!(introduced(&node), Introduced { identity: None, ready: None });
    }
}
