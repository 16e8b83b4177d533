//! The page of the reference that lists every annotation: `docs/reference/annotations.md`.

use maesh_test_support::generated::{NOTE, is_current};

use super::{Scope, Side, declared};
use crate::kinds::{OLD_PREFIX, PREFIX};

#[test]
fn reference_page_is_current() {
    let mut page = format!(
        "{NOTE}\n# Annotations\n\nAnnotations of the mesh stand on a Service, or on a Namespace as the default of its \
         Services where the table says so. The prefix is `{PREFIX}`. The prefix of Traefik Mesh, `{OLD_PREFIX}`, is read \
         too; if both are there, `{PREFIX}` wins. An annotation on a Service wins over that of its Namespace.\n\nTo set \
         an annotation for one port only, put the number or the name of the port in front: `{PREFIX}8080.traffic-type`, \
         `{PREFIX}web.scheme`. \
         The table says which annotations allow that.\n\nThe side says whose annotation counts where a route or a split \
         leads to another Service: that of the Service that was called, or that of the backend that was chosen.\n\nA value that cannot be used never takes a Service out of the mesh: the default is used, \
         and an [Event](events.md) on the object, `maesh explain` and `/api/diagnostics` of the controller say so.\n\n\
         | annotation | values | default | example | side | on a Namespace | for one port | what it does |\n|---|---|---|---|---|---|---|---|\n"
    );
    let yes_or_no = |yes| if yes { "yes" } else { "no" };
    for about in super::all() {
        let of_port = declared(about.name).is_some_and(|it| matches!(it.scope(), Scope::Port(_)));
        let side = match about.side {
            Side::Called => "called",
            Side::Backend => "backend",
        };
        page += &format!(
            "| `{}` | {} | {} | `{}` | {side} | {} | {} | {} |\n",
            about.name,
            about.values,
            about.default,
            about.example,
            yes_or_no(about.on_namespace),
            yes_or_no(of_port),
            about.purpose
        );
    }
    let names: Vec<String> = super::later().iter().map(|name| format!("`{name}`")).collect();
    page += &format!(
        "\n## Known and not supported yet\n\nThese annotations have no effect in this version. Setting one gives an Event \
         with reason `UnsupportedAnnotation`: {}.\n",
        names.join(", ")
    );
    is_current("docs/reference/annotations.md", &page, "cargo xtask docs");
}
