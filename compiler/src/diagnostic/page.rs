//! The page of the reference that lists the reasons of Events: `docs/reference/events.md`.

use maesh_test_support::generated::{NOTE, is_current};

use super::Reason;

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
    for reason in Reason::ALL {
        assert!(!std::mem::replace(&mut seen[reason as usize], true), "{reason} is there twice");
        page += &format!("| `{reason}` | {} |\n", reason.meaning());
    }
    assert!(seen[..Reason::ALL.len()].iter().all(|seen| *seen), "a reason is missing in the page");
    page += "\n## On the ConfigMap of the cluster's DNS\n\nIf the ConfigMap was not found, these are on the Service of the \
             mesh's dns. [The cluster's DNS](../cluster-dns.md) explains them.\n\n| reason | type | meaning \
             |\n|---|---|---|\n";
    page += STANZA;
    is_current("docs/reference/events.md", &page, "cargo xtask docs");
}
