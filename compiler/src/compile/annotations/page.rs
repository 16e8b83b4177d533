//! The page of the reference that lists every annotation: `docs/reference/annotations.md`.

use maesh_test_support::generated::{NOTE, is_current};

use super::{KNOWN, Known};
use crate::kinds::{OLD_PREFIX, PREFIX};

/// What an annotation is for; empty for one that this version ignores.
fn purpose(name: &str) -> &'static str {
    match name {
        "address" => {
            "Whether the Service shares the proxies' address or gets an address of its own, on which its ports are its \
             alone."
        }
        "addressing" => {
            "What the name of an HTTP Service resolves to: the proxy on the caller's node, or one address for all callers. \
             `service` is for clients that cache names for ever."
        }
        "bypass" => "`true`: the name resolves to the Service's ClusterIP, and no traffic of it passes the mesh.",
        "scheme" => {
            "What endpoints of an HTTP port are spoken to in: HTTP/1.1 or HTTP/2 without TLS. `https` is not served in this \
             version: the answer is a 502 with reason `upstream_protocol`."
        }
        "traffic-type" => {
            "What a port carries. `udp` is not carried in this version: the name resolves to the ClusterIP."
        }
        _ => "",
    }
}

#[test]
fn reference_page_is_current() {
    let mut page = format!(
        "{NOTE}\n# Annotations\n\nAnnotations of the mesh stand on a Service, or on a Namespace as the default of its \
         Services where the table says so. The prefix is `{PREFIX}`. The prefix of Traefik Mesh, `{OLD_PREFIX}`, is read \
         too; if both are there, `{PREFIX}` wins. An annotation on a Service wins over that of its Namespace.\n\nTo set \
         an annotation for one port only, put the number or the name of the port in front: `{PREFIX}8080.traffic-type`, \
         `{PREFIX}web.scheme`. \
         The table says which annotations allow that.\n\nA value that cannot be used never takes a Service out of the mesh: the default is used, \
         and an [Event](events.md) on the object, `maesh explain` and `/api/diagnostics` of the controller say so.\n\n\
         | annotation | values | default | on a Namespace | for one port | what it does |\n|---|---|---|---|---|---|\n"
    );
    let (supported, ignored): (Vec<&Known>, Vec<&Known>) = KNOWN.iter().partition(|known| known.good.is_some());
    for known in supported {
        assert!(!purpose(known.name).is_empty(), "{}: say what it is for, in this file", known.name);
        page += &format!(
            "| `{}` | {} | {} | {} | {} | {} |\n",
            known.name,
            known.values,
            known.default,
            if known.on_namespace { "yes" } else { "no" },
            if known.of_port { "yes" } else { "no" },
            purpose(known.name)
        );
    }
    let names: Vec<String> = ignored.iter().map(|known| format!("`{}`", known.name)).collect();
    page += &format!(
        "\n## Known and not supported yet\n\nThese annotations have no effect in this version. Setting one gives an Event \
         with reason `UnsupportedAnnotation`: {}.\n",
        names.join(", ")
    );
    is_current("docs/reference/annotations.md", &page, "cargo xtask docs");
}
