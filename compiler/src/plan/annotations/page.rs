//! The page of the reference that lists every annotation: `docs/reference/annotations.md`.

use maesh_test_support::generated::{NOTE, is_current};

use super::{Scope, check::one_of, declared};
use crate::kinds::{OLD_PREFIX, PREFIX};

#[test]
fn reference_page_is_current() {
    let mut page = format!(
        "{NOTE}\n# Annotations\n\nSet annotations of the mesh on a Service or, where the table allows it, on a Namespace as \
         the default of its Services. The prefix is `{PREFIX}`. The prefix of Traefik Mesh, `{OLD_PREFIX}`, is read \
         too; if both are there, `{PREFIX}` wins. An annotation on a Service wins over that of its Namespace.\n\nTo set \
         an annotation for one port only, put the number or the name of the port in front: `{PREFIX}8080.traffic-type`, \
         `{PREFIX}web.scheme`. \
         If both name the same port, the number counts. The table says which annotations allow \
         that.\n\nA name that no annotation has is ignored; the message suggests a similar name. If the value is none of those in the table, the default is used. In both cases the Service stays in the \
         mesh, and an [Event](events.md) on the object, `maesh explain` and `/api/diagnostics` of the controller say so.\n\n\
         | annotation | values | default | example | ports | on a Namespace | for one port | what it does |\n|---|---|---|---|---|---|---|---|\n"
    );
    let yes_or_no = |yes| if yes { "yes" } else { "no" };
    for about in super::all() {
        let scope = declared(about.name).map(|it| it.scope());
        let of_port = matches!(scope, Some(Scope::Port(_)));
        let on_namespace =
            if matches!(scope, Some(Scope::Namespace)) { "only there" } else { yes_or_no(about.on_namespace) };
        page += &format!(
            "| `{}` | {} | {} | {} | {} | {} | {} | {} |\n",
            about.name,
            about.values,
            about.default,
            code(&about.example.replace('|', "\\|")),
            one_of(about.protocols),
            on_namespace,
            yes_or_no(of_port),
            about.purpose
        );
    }
    is_current("docs/reference/annotations.md", &page, "cargo xtask docs");
}

/// As code, also where it has backquotes itself.
fn code(text: &str) -> String {
    if text.contains('`') { format!("``{text}``") } else { format!("`{text}`") }
}
