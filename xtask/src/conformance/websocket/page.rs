//! The page of a run without faults.

use anyhow::Result;

use super::super::peers::version;
use super::cases::{CASES, LIMITS, reason_against};
use super::clients::{CLIENTS, Client};
use super::servers::Server;

pub(super) fn page(servers: &[Server]) -> Result<String> {
    let mut page = format!(
        "<!-- Written by `MAESH_WRITE=1 cargo xtask conformance websocket`; do not edit. -->\n\
         # WebSocket\n\n\
         Clients and servers of other makers, with `maesh dev` between them. `cargo xtask conformance websocket` runs it\n\
         again, and fails if a case comes to another result. Each client asks each of these {} servers:\n\n",
        servers.len()
    );
    for server in servers {
        page += &format!("- {}\n", server.title);
    }
    page += &format!(
        "\nThe clients are:\n\n\
         - `ws`, `gorilla`, `coder` and `websockets`: the same libraries.\n\
         - [undici](https://github.com/nodejs/undici) {}, Node.js: over HTTP/2, by extended CONNECT (RFC 8441). It asks for\n  \
           `Sec-WebSocket-Accept` there too, which that RFC does away with; the suite adds it to the response.\n\
         - [wsproto](https://github.com/python-hyper/wsproto) {} with [h2](https://github.com/python-hyper/h2), Python: over\n  \
           HTTP/2 as well.\n\
         - Chromium: it opens a page through the mesh, whose script runs the cases. Browsers open WebSockets over HTTP/2 only\n  \
           inside TLS, so here it is HTTP/1.1.\n\n\
         A number says at how many servers the case passes.\n\n",
        version("undici")?,
        version("wsproto")?,
    );
    page += &row("case", |client| client.title.to_owned());
    page += &row("---", |_| "---".to_owned());
    for case in CASES {
        page += &row(case.shows, |client| match reason_against(client, case) {
            Some(_) => "-".to_owned(),
            None => servers.len().to_string(),
        });
    }
    page += "\n## What is not asked\n\n";
    for limit in LIMITS {
        page += &format!("- `{}`: {}.\n", limit.clients.join("`, `"), limit.why);
    }
    Ok(page)
}

fn row(first: &str, cell: impl Fn(&Client) -> String) -> String {
    let cells: Vec<String> = CLIENTS.iter().map(cell).collect();
    format!("| {first} | {} |\n", cells.join(" | "))
}
