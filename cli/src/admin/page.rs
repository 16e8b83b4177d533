//! The start page: what the admin port offers, and the table of Services where there is one.

use std::fmt::Write as _;

use serde_json::Value;

use crate::version::VERSION;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem;max-width:60rem}\
    td,th{text-align:left;padding:.1rem 1.5rem .1rem 0;vertical-align:top}code{font-size:.95em}";

/// The page. `paths` are offered as links; of `queries` it is said how they are asked; `services` is what
/// `/api/services` answers.
pub(super) fn start(paths: &[String], queries: &[String], services: Option<&Value>) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>maesh</title><style>{STYLE}</style></head>\
         <body><h1>maesh {}</h1>\n",
        escape(VERSION)
    );
    if let Some(services) = services.and_then(|all| all["services"].as_array()) {
        page += &table(services);
    }
    page += "<h2>This port</h2>\n<table>\n";
    for (path, what) in [
        ("/livez", "answers 200 while the process runs"),
        ("/readyz", "answers 200 while it takes new work, otherwise 503 and what is missing"),
        ("/metrics", "metrics for Prometheus"),
    ] {
        row(&mut page, path, what);
    }
    for path in paths {
        row(&mut page, path, "JSON");
    }
    for path in queries {
        let _ = writeln!(page, "<tr><td><code>{0}?...</code></td><td>asked by maesh explain</td></tr>", escape(path));
    }
    page + "</table></body></html>\n"
}

fn row(page: &mut String, path: &str, what: &str) {
    let (path, what) = (escape(path), escape(what));
    let _ = writeln!(page, "<tr><td><a href=\"{path}\">{path}</a></td><td>{what}</td></tr>");
}

fn table(services: &[Value]) -> String {
    let mut table = "<h2>Services</h2>\n<table>\n<tr><th>name</th><th>address</th><th>ports</th></tr>\n".to_owned();
    for service in services {
        let ports = service["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ports: Vec<String> = ports.iter().map(port).collect();
        let address = match (service["address"].as_str(), &service["bypass"]) {
            (Some(address), Value::Bool(true)) => format!("{address} (bypassed)"),
            (Some(address), _) => address.to_owned(),
            (None, _) => "none yet".to_owned(),
        };
        let cells = [service["name"].as_str().unwrap_or_default(), &address, &ports.join(", ")].map(escape);
        let _ = writeln!(table, "<tr><td>{}</td></tr>", cells.join("</td><td>"));
    }
    table + "</table>\n"
}

fn port(port: &Value) -> String {
    let text = format!("{} {}", port["port"], port["protocol"].as_str().unwrap_or_default());
    if port["listen"] == port["port"] { text } else { format!("{text} (served on {})", port["listen"]) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_users_wrote_is_text() {
        let port = json!({ "port": 80, "listen": 8080, "protocol": "http" });
        let services = json!({ "services": [{ "name": "<b>&\"", "address": "127.77.0.1", "ports": [port] }] });
        let page = start(&[], &[], Some(&services));
        assert!(
            page.contains("<td>&lt;b&gt;&amp;&quot;</td><td>127.77.0.1</td><td>80 http (served on 8080)</td>"),
            "{page}"
        );
    }
}
