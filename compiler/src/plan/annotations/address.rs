//! What the name of a Service resolves to.

use maesh_config::model::Protocol;

use super::{About, Annotation, BadValue, Scope, Side};

const SHARED_OR_OWN: &str = "shared or own";
const NODE_OR_SERVICE: &str = "node or service";
const ANY: &[Protocol] = &[Protocol::Http, Protocol::Tcp, Protocol::Udp];
const TRUE_OR_FALSE: &str = "true or false";

/// Whether a Service asks for an own address.
pub(crate) static ADDRESS: Annotation<bool> = Annotation {
    about: About {
        name: "address",
        side: Side::Called,
        on_namespace: true,
        protocols: ANY,
        values: SHARED_OR_OWN,
        default: "shared where all ports are HTTP, else own",
        purpose: "Whether the Service shares the proxies' address or gets an address of its own, on which its ports are \
                  its alone.",
        example: "own",
    },
    scope: Scope::Service(|plan| if plan.own { "own" } else { "shared" }.into()),
    parse: |text| match text {
        "own" => Ok(true),
        "shared" => Ok(false),
        _ => Err(BadValue::expected(SHARED_OR_OWN)),
    },
    unsupported: |_| None,
};

/// Whether one address answers callers of every node.
pub(crate) static ADDRESSING: Annotation<bool> = Annotation {
    about: About {
        name: "addressing",
        side: Side::Called,
        on_namespace: true,
        protocols: ANY,
        values: NODE_OR_SERVICE,
        default: "the mesh's mode",
        purpose: "What the name of an HTTP Service resolves to: the proxy on the caller's node, or one address for all \
                  callers. `service` is for clients that cache names for ever.",
        example: "service",
    },
    scope: Scope::Service(|plan| if plan.own || plan.one_address { "service" } else { "node" }.into()),
    parse: |text| match text {
        "service" => Ok(true),
        "node" => Ok(false),
        _ => Err(BadValue::expected(NODE_OR_SERVICE)),
    },
    unsupported: |_| None,
};

/// Whether the name resolves to the ClusterIP on purpose.
pub(crate) static BYPASS: Annotation<bool> = Annotation {
    about: About {
        name: "bypass",
        side: Side::Called,
        on_namespace: false,
        protocols: ANY,
        values: TRUE_OR_FALSE,
        default: "false",
        purpose: "`true`: the name resolves to the Service's ClusterIP, and no traffic of it passes the mesh.",
        example: "true",
    },
    scope: Scope::Service(|plan| plan.bypass.to_string()),
    parse: |text| text.parse().map_err(|_| BadValue::expected(TRUE_OR_FALSE)),
    unsupported: |_| None,
};
