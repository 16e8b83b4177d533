//! The page of a run without faults.

use anyhow::Result;

use super::super::peers::version;
use super::cases::{CASES, LIMITS, reason_against};
use super::clients::CLIENTS;
use super::servers::Server;

pub(super) fn page(servers: &[Server]) -> Result<String> {
    let mut page = format!(
        "<!-- Written by `MAESH_WRITE=1 cargo xtask conformance websocket`; do not edit. -->\n\
         # WebSocket\n\n\
         Clients and servers of other makers, with `maesh dev` between them. `cargo xtask conformance websocket` runs it again, and\n\
         fails if one case comes to another result. Each client asks each of these {} servers:\n\n",
        servers.len()
    );
    for server in servers {
        page += &format!("- {}\n", server.title);
    }
    page += &format!(
        "\nThe clients `ws`, `gorilla`, `coder` and `websockets` are of the same libraries. Two more open WebSockets over HTTP/2, by\n\
         extended CONNECT (RFC 8441): [undici](https://github.com/nodejs/undici) {} for Node.js, which\n\
         asks for `Sec-WebSocket-Accept` there too, against that RFC, so that the suite adds it; and\n\
         [wsproto](https://github.com/python-hyper/wsproto) {} with [h2](https://github.com/python-hyper/h2) for Python. Chromium\n\
         opens a page through the mesh, and the script in there runs the cases; it opens WebSockets over HTTP/2 with TLS only, so\n\
         here it does over HTTP/1.1.\n\n\
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
        page += &format!("- `{}`: {}.\n", limit.clients.join("` and `"), limit.why);
    }
    Ok(page)
}

fn row(first: &str, cell: impl Fn(&super::clients::Client) -> String) -> String {
    let cells: Vec<String> = CLIENTS.iter().map(cell).collect();
    format!("| {first} | {} |\n", cells.join(" | "))
}
