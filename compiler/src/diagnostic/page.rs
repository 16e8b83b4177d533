//! The page of the reference that lists the reasons of Events: `docs/reference/events.md`.

use maesh_test_support::generated::{NOTE, is_current};

use super::Reason;

/// Every reason, in the order of the page.
const ALL: [Reason; 25] = [
    Reason::InvalidAnnotation,
    Reason::UnknownAnnotation,
    Reason::UnsupportedAnnotation,
    Reason::InvalidPort,
    Reason::InvalidAddress,
    Reason::ForbiddenEndpoint,
    Reason::InvalidObject,
    Reason::UnsupportedProtocol,
    Reason::UnsupportedService,
    Reason::Shadowed,
    Reason::SplitNotUsed,
    Reason::SplitBackend,
    Reason::NothingGranted,
    Reason::HeadlessPortDiffers,
    Reason::ListenFailed,
    Reason::TooManyPorts,
    Reason::ListenPortExhausted,
    Reason::AddressRangeExhausted,
    Reason::OwnAddressRefused,
    Reason::WatchFailed,
    Reason::UnreadableFile,
    Reason::UnparsableFile,
    Reason::OnlyComments,
    Reason::DuplicateObject,
    Reason::UnknownKind,
];

/// What the reason means. A new reason does not compile until it is here, and then it belongs into [`ALL`].
const fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::UnreadableFile => "`maesh dev`: a file or folder cannot be read.",
        Reason::UnparsableFile => {
            "`maesh dev`: a file is not YAML or JSON, or became empty; what it said before stays in force."
        }
        Reason::OnlyComments => "`maesh dev`: a file holds only comments; the objects that it held are removed.",
        Reason::InvalidObject => {
            "A field that is required is missing, or a field has a value that it cannot have: the object is left out, or \
             what the field says."
        }
        Reason::DuplicateObject => "`maesh dev`: the same object is written twice.",
        Reason::UnknownKind => "`maesh dev`: the mesh does not read objects of this kind.",
        Reason::InvalidAnnotation => "An annotation has a value that it cannot have; the default is used.",
        Reason::UnknownAnnotation => {
            "No annotation has this name, the Service has no such port, or the annotation has no effect on a Namespace; it \
             is ignored."
        }
        Reason::UnsupportedAnnotation => "This version of the mesh does not support the annotation or its value.",
        Reason::InvalidPort => {
            "A port number is out of range, or there twice; or an EndpointSlice has a port that its Service does not have."
        }
        Reason::Shadowed => "A TrafficSplit is not used, because an older one or the annotation `routes` comes first.",
        Reason::SplitNotUsed => {
            "A TrafficSplit is not used: its Service or an HTTPRouteGroup is missing, or it matches nothing."
        }
        Reason::SplitBackend => {
            "A backend of a TrafficSplit is missing or lacks a port, is the Service itself, or no backend has a weight."
        }
        Reason::NothingGranted => {
            "A TrafficTarget, or a part of it, admits nothing: what it names is missing, there are too many, or access control is \
             off."
        }
        Reason::UnsupportedProtocol => "The mesh does not carry this transport protocol.",
        Reason::UnsupportedService => "An annotation asks for a Service to be meshed whose type cannot be.",
        Reason::InvalidAddress => "An address is malformed, or of a kind that the mesh does not use.",
        Reason::ForbiddenEndpoint => {
            "An endpoint is an address that the mesh never dials, such as the mesh itself, loopback, or a range of \
             `--deny-endpoint-cidr`; it is left out."
        }
        Reason::TooManyPorts => {
            "The Services of a namespace need more ports of the proxies than one namespace may have \
             (`--ports-per-namespace`); the Services beyond that resolve to ClusterIPs."
        }
        Reason::HeadlessPortDiffers => {
            "A headless Service has a port that differs from its target port: callers that go around the mesh cannot reach \
             it on that port."
        }
        Reason::AddressRangeExhausted => "The range of own addresses (`--address-range`) is used up.",
        Reason::OwnAddressRefused => {
            "The API server refuses the Service `maesh-own-N` that would be an own address, or somebody else's object has its \
             name; the names on it resolve to ClusterIPs."
        }
        Reason::ListenPortExhausted => "`maesh dev`: no port is left to listen on instead of one below 1024.",
        Reason::ListenFailed => "A proxy cannot listen on a port.",
        Reason::WatchFailed => "The Kubernetes API refuses or lacks something that the controller has to watch.",
    }
}

/// Events on what happens to the cluster's DNS; `controller/src/duties/stanza` writes them.
const STANZA: &str = "\
| `StanzaWritten` | Normal | The stanza was added to the configuration of the cluster's DNS. |
| `StanzaMended` | Normal | The stanza was missing or changed, and was written again. |
| `StanzaBlocked` | Warning | Something has been in the way of writing or removing the stanza for 30 seconds. |
| `StanzaNotInForce` | Warning | The stanza is written, and not every server of the cluster's DNS uses it. |
| `StanzaReverted` | Warning | Names stopped resolving after the stanza was written, so it was removed again. |
| `StanzaKept` | Warning | The mesh was uninstalled, and the stanza could not be removed. |
";

#[test]
fn reference_page_is_current() {
    let mut page = format!(
        "{NOTE}\n# Events\n\nThe leader of the controllers writes Events on the object that has a problem. The same text is \
         in `/api/diagnostics` of the controller, in `maesh explain`, and in the output of `maesh dev`, with the same \
         reason. One problem is one Event; it is renewed every half hour for as long as the problem lasts.\n\n\
         ```sh\nkubectl get events -A --field-selector reportingComponent=maesh.containo.us/controller\n```\n\n\
         ## On Services, EndpointSlices, Namespaces and other objects that the mesh reads\n\n\
         | reason | meaning |\n|---|---|\n"
    );
    let mut seen = [false; 256];
    for reason in ALL {
        assert!(!std::mem::replace(&mut seen[reason as usize], true), "{reason} is there twice");
        page += &format!("| `{reason}` | {} |\n", meaning(reason));
    }
    assert!(seen[..ALL.len()].iter().all(|seen| *seen), "a reason is missing in the page");
    page += "\n## On the ConfigMap of the cluster's DNS\n\nIf the ConfigMap was not found, these are on the Service of the \
             mesh's dns. [The cluster's DNS](../cluster-dns.md) explains them.\n\n| reason | type | meaning \
             |\n|---|---|---|\n";
    page += STANZA;
    is_current("docs/reference/events.md", &page, "cargo xtask docs");
}
