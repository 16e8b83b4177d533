//! Which columns each list has.

use std::collections::BTreeMap;

use maesh_compiler::compile::routes::{RouteBackend, RouteSeen};
use serde::Deserialize;
use serde_json::Value;

use super::{
    table::Table,
    views::{PortRow, ServiceRow},
};
use crate::args::Listed;

/// Longest text in a column that is not the last one, in characters; `-o wide` cuts nothing.
const LONGEST: usize = 60;

/// A dns or proxy, as a controller tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberRow {
    /// The pod's name.
    pub id: String,
    /// `dns` or `proxy`.
    pub role: String,
    /// Node it runs on.
    pub node: Option<String>,
    /// Where callers reach it.
    pub addresses: Vec<String>,
    /// Version of its program.
    pub version: String,
    /// It takes new work.
    pub ready: bool,
    /// It has its configuration from another controller.
    pub elsewhere: bool,
    /// Revision that it has put in force.
    pub acknowledged: u64,
    /// Number of ports it listens on.
    pub listening: usize,
    /// Ports that it could not open, with the reason.
    pub failed: BTreeMap<String, String>,
    /// What else it could not put in force.
    pub rejected: Vec<Rejected>,
}

/// Something that a dns or proxy could not put in force.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Rejected {
    /// Kind of the resource.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The reason.
    pub why: String,
}

#[derive(Deserialize)]
struct DiagnosticRow {
    severity: String,
    diagnostic: Found,
}

#[derive(Deserialize)]
struct Found {
    object: Object,
    field: Option<String>,
    value: Option<String>,
    message: String,
    using: Option<String>,
    reason: String,
    file: Option<String>,
    line: Option<u32>,
}

#[derive(Deserialize)]
struct Object {
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl Object {
    /// `NAMESPACE/NAME`, or the name of what has no namespace.
    fn path(&self) -> String {
        self.namespace.as_ref().map_or_else(|| self.name.clone(), |namespace| format!("{namespace}/{}", self.name))
    }
}

/// The list as a table.
///
/// # Errors
/// When an item is not as this version knows it.
pub fn table(what: Listed, items: &[Value], wide: bool) -> serde_json::Result<Table> {
    Ok(match what {
        Listed::Services => services(&read(items)?, wide),
        Listed::Routes => routes(&read(items)?, wide),
        Listed::Proxies => proxies(&read(items)?, wide),
        Listed::Diagnostics => diagnostics(&read(items)?, wide),
    })
}

/// What an item is called: what `maesh get` and `maesh explain` take as a name.
pub fn name(what: Listed, item: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match what {
        Listed::Services | Listed::Routes => text(&item["service"]),
        Listed::Proxies => text(&item["id"]),
        Listed::Diagnostics => {
            let object = &item["diagnostic"]["object"];
            match object["namespace"].as_str() {
                Some(namespace) => format!("{namespace}/{}", text(&object["name"])),
                None => text(&object["name"]),
            }
        }
    }
}

fn read<'a, T: Deserialize<'a>>(items: &'a [Value]) -> serde_json::Result<Vec<T>> {
    items.iter().map(T::deserialize).collect()
}

fn services(rows: &[ServiceRow], wide: bool) -> Table {
    let mut headers = vec!["NAME", "ADDRESS", "PORTS", "ENDPOINTS", "BYPASS"];
    headers.extend(wide.then_some("SERVICE"));
    let mut table = Table::new(headers);
    for row in rows {
        let address = row.address.clone().unwrap_or_else(|| "by node".to_owned());
        let ports = list(row.ports.iter().map(|port| of_port(port, wide)));
        let cells = [row.name.clone(), address, ports, endpoints(&row.ports), yes(row.bypass)];
        table.row(cells.into_iter().chain(wide.then(|| row.service.clone())));
    }
    table
}

fn of_port(port: &PortRow, wide: bool) -> String {
    let listen = if port.listen == port.port { String::new() } else { format!(" on {}", port.listen) };
    let name = port.name.as_ref().filter(|_| wide).map_or_else(String::new, |name| format!("{name}:"));
    format!("{name}{}{listen}/{}", port.port, port.protocol)
}

/// Ready endpoints of all; of each port where they differ, in the order of the ports.
fn endpoints(ports: &[PortRow]) -> String {
    let of_port = |port: &PortRow| match (port.ready_endpoints, port.endpoints) {
        (Some(ready), Some(all)) => format!("{ready}/{all}"),
        _ => "-".to_owned(),
    };
    let mut counts: Vec<_> = ports.iter().map(of_port).collect();
    if counts.iter().all(|count| *count == counts[0]) {
        counts.truncate(1);
    }
    counts.join(", ")
}

fn routes(rows: &[RouteSeen], wide: bool) -> Table {
    let mut table = Table::new(["SERVICE", "PORT", "ORIGIN", "RULE", "BACKENDS"]);
    for row in rows {
        let origin = match (&*row.origin.kind, wide) {
            ("annotation", false) => "annotation".to_owned(),
            (kind, _) => format!("{kind} {}", row.origin.name),
        };
        let rule = row.rule.clone().unwrap_or_else(|| "any".to_owned());
        let port = format!("{}/{}", row.port, row.protocol);
        table.row([row.service.clone(), port, origin, cut(rule, wide), backends(&row.backends)]);
    }
    table
}

/// Each with its weight, where there is a choice.
fn backends(backends: &[RouteBackend]) -> String {
    let one = |backend: &RouteBackend| match backends {
        [RouteBackend { weight: 1.., .. }] => format!("{}:{}", backend.service, backend.port),
        _ => format!("{}:{} {}", backend.service, backend.port, backend.weight),
    };
    list(backends.iter().map(one))
}

fn proxies(rows: &[SubscriberRow], wide: bool) -> Table {
    let mut headers = vec!["NAME", "NODE", "ADDRESS", "VERSION", "READY", "REVISION", "FAILED", "REJECTED"];
    headers.extend(wide.then_some(["LISTENING", "WHY"]).into_iter().flatten());
    let mut table = Table::new(headers);
    for row in rows {
        // Only the controller that a proxy has its configuration from knows how far it is.
        let revision = if row.elsewhere { String::new() } else { row.acknowledged.to_string() };
        let cells = [
            row.id.clone(),
            row.node.clone().unwrap_or_default(),
            list(row.addresses.iter().cloned()),
            row.version.clone(),
            yes(row.ready),
            revision,
            row.failed.len().to_string(),
            row.rejected.len().to_string(),
        ];
        let more = wide.then(|| [row.listening.to_string(), why(row)]);
        table.row(cells.into_iter().chain(more.into_iter().flatten()));
    }
    table
}

fn why(row: &SubscriberRow) -> String {
    let failed = row.failed.iter().map(|(port, why)| format!("{port}: {why}"));
    let rejected = row.rejected.iter().map(|it| format!("{} {}: {}", it.kind, it.name, it.why));
    failed.chain(rejected).collect::<Vec<_>>().join("; ")
}

fn diagnostics(rows: &[DiagnosticRow], wide: bool) -> Table {
    let mut headers = vec!["SEVERITY", "OBJECT", "FIELD", "VALUE", "USING"];
    headers.extend(wide.then_some(["REASON", "PLACE"]).into_iter().flatten());
    headers.push("MESSAGE");
    let mut table = Table::new(headers);
    for DiagnosticRow { severity, diagnostic: found } in rows {
        let object = format!("{} {}", found.object.kind, found.object.path());
        let (field, value) = (found.field.clone().unwrap_or_default(), found.value.clone().unwrap_or_default());
        let using = found.using.clone().unwrap_or_default();
        let cells = [severity.clone(), object, field, cut(value, wide), cut(using, wide)];
        let more = wide.then(|| [found.reason.clone(), place(found)]);
        // The message of the API begins with the object, which has a column of its own.
        let message = found.message.split_once(": ").map_or(&*found.message, |(_, text)| text).to_owned();
        table.row(cells.into_iter().chain(more.into_iter().flatten()).chain([message]));
    }
    table
}

fn place(found: &Found) -> String {
    let line = found.line.map_or_else(String::new, |line| format!(":{line}"));
    found.file.as_ref().map_or_else(String::new, |file| format!("{file}{line}"))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn yes(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

/// `text`, unless it is too long for a column.
fn cut(text: String, wide: bool) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) if !wide => format!("{}…", &text[..end]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(what: Listed, items: &Value, wide: bool) -> String {
        table(what, items.as_array().expect("a list"), wide).expect("a table").text(true)
    }

    #[test]
    fn services_for_people() {
        let port = |name: Value, port: u16, listen: u16, ready: Value, all: Value| {
            json!({
                "name": name, "port": port, "listen": listen, "protocol": "http", "readyEndpoints": ready, "endpoints": all,
            })
        };
        let items = json!([
            {
                "service": "shop/web", "name": "web.shop.maesh", "address": "127.77.0.1", "bypass": false,
                "ports": [port(json!("main"), 80, 8080, json!(1), json!(2)), port(Value::Null, 81, 81, json!(0), json!(2))],
            },
            {
                "service": "shop/db", "name": "db.shop.maesh", "address": null, "bypass": true,
                "ports": [port(Value::Null, 90, 90, Value::Null, Value::Null)],
            },
        ]);
        let want = "\
NAME            ADDRESS     PORTS                     ENDPOINTS  BYPASS
web.shop.maesh  127.77.0.1  80 on 8080/http, 81/http  1/2, 0/2   no
db.shop.maesh   by node     90/http                   -          yes
";
        assert_eq!(text(Listed::Services, &items, false), want);
        assert!(text(Listed::Services, &items, true).contains("main:80 on 8080/http, 81/http"));
    }

    #[test]
    fn routes_for_people() {
        let backend = |name: &str, weight: u32| json!({ "service": name, "port": 80, "weight": weight });
        let annotation = json!({ "kind": "annotation", "name": "maesh.containo.us/routes" });
        let split = json!({ "kind": "TrafficSplit", "name": "shop/canary" });
        let long = format!("Path(`/{}`)", "x".repeat(80));
        let route = |origin: &Value, rule: Value, backends: Value| {
            json!({
                "service": "shop/web", "port": 80, "protocol": "http", "origin": origin, "rule": rule, "backends": backends,
            })
        };
        let items = json!([
            route(&annotation, json!(long), json!([backend("shop/api", 1)])),
            route(&split, Value::Null, json!([backend("shop/a", 3), backend("shop/b", 0)])),
        ]);
        let said = text(Listed::Routes, &items, false);
        let cells = |line: usize| {
            said.lines().nth(line).expect("a line").split("  ").filter(|it| !it.is_empty()).map(str::trim)
        };
        let rule = format!("Path(`/{}…", "x".repeat(53));
        assert_eq!(cells(1).collect::<Vec<_>>(), ["shop/web", "80/http", "annotation", &rule, "shop/api:80"]);
        let want = ["shop/web", "80/http", "TrafficSplit shop/canary", "any", "shop/a:80 3, shop/b:80 0"];
        assert_eq!(cells(2).collect::<Vec<_>>(), want);
        let wide = text(Listed::Routes, &items, true);
        assert!(wide.contains(&long) && wide.contains("annotation maesh.containo.us/routes"), "{wide}");
    }

    #[test]
    fn proxies_for_people() {
        let proxy = |id: &str, elsewhere: bool| {
            json!({
                "id": id, "role": "proxy", "node": "n1", "addresses": ["10.0.0.1", "fd00::1"], "version": "0.1.0",
                "ready": !elsewhere, "elsewhere": elsewhere, "acknowledged": 7, "listening": 3,
                "failed": { "shared/80/tcp": "refused" },
                "rejected": [{ "kind": "Service", "name": "shop/web", "why": "too\nnew" }],
            })
        };
        let want = "\
NAME  NODE  ADDRESS            VERSION  READY  REVISION  FAILED  REJECTED
a     n1    10.0.0.1, fd00::1  0.1.0    yes    7         1       1
b     n1    10.0.0.1, fd00::1  0.1.0    no     -         1       1
";
        let items = json!([proxy("a", false), proxy("b", true)]);
        assert_eq!(text(Listed::Proxies, &items, false), want);
        let wide = text(Listed::Proxies, &items, true);
        assert!(wide.contains("  3          shared/80/tcp: refused; Service shop/web: too\\nnew\n"), "{wide}");
    }

    #[test]
    fn hostile_values_are_shown_and_command_nothing() {
        let value = "\u{1b}[2J\u{9b}\u{202e}\nerror: forged";
        let items = json!([{
            "severity": "warning",
            "diagnostic": {
                "object": { "kind": "Service", "namespace": "shop", "name": value }, "field": "metadata.annotations[x]",
                "value": value, "message": format!("Service shop/x: annotation x is {value}"), "using": value,
                "reason": "InvalidAnnotation", "file": value, "line": 3,
            },
        }]);
        for wide in [false, true] {
            let said = text(Listed::Diagnostics, &items, wide);
            assert_eq!(said.lines().count(), 2, "{said:?}");
            assert!(!said.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{said:?}");
            assert!(said.contains("\\u{1b}[2J\\u{9b}\\u{202e}\\nerror: forged"), "{said:?}");
        }
        assert_eq!(name(Listed::Diagnostics, &items[0]), format!("shop/{value}"));
    }
}
