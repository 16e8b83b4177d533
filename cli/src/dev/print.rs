//! What `maesh dev` says on standard output: a table and lines for people, or one JSON object a line for scripts.
//!
//! The JSON is a contract: fields are added, never renamed or taken away.

use std::io::{self, Write};

use jiff::Timestamp;
use maesh_compiler::diagnostic::escaped;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{args::Output, terminal};

/// One meshed Service, as the table shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Mesh name: `web.shop.maesh`.
    pub name: String,
    /// The address its name answers; `None` while it has none.
    pub address: Option<String>,
    /// Its meshed ports.
    pub ports: Vec<Port>,
    /// It is bypassed: the address is the plain one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bypass: bool,
}

/// One meshed port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// The port's name, if it has one.
    pub name: Option<String>,
    /// The Service's port number.
    pub port: u16,
    /// The port it is served on.
    pub listen: u16,
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
}

/// Prints events in the chosen form.
#[derive(Clone, Copy, Debug)]
pub struct Printer(pub Output);

impl Printer {
    /// Everything serves; the whole table.
    pub fn ready(self, dns: &str, admin: &str, services: &[Entry]) {
        match self.0 {
            Output::Json => event("ready", json!({ "dns": dns, "admin": admin, "services": services })),
            Output::Text => people(&format!(
                "{}\ndns    {dns}   try: dig @{} -p {} {} +short\nadmin  http://{admin}/   metrics, health, /api\nready; a saved manifest takes effect within a second; Ctrl-C ends\n",
                table(services),
                host(dns),
                port(dns),
                services.first().map_or("NAME", |entry| &entry.name),
            )),
        }
    }

    /// These Services changed and what is said here is in force; these names are gone.
    pub fn changed(self, services: &[Entry], removed: &[String]) {
        match self.0 {
            Output::Json => event("changed", json!({ "services": services, "removed": removed })),
            Output::Text => {
                let mut text = String::new();
                for entry in services {
                    text += &format!("changed  {}\n", line(entry));
                }
                for name in removed {
                    text += &format!("removed  {name}\n");
                }
                people(&text);
            }
        }
    }

    /// A diagnostic: `severity` is `warning` or `error`.
    pub fn diagnostic(self, severity: &str, fields: Value, message: &str) {
        match self.0 {
            Output::Json => event(severity, fields),
            Output::Text => {
                let place = |key: &str| fields.get(key).filter(|v| !v.is_null()).map(plain);
                let at = match (place("file"), place("line")) {
                    (Some(file), Some(line)) => format!("{file}:{line}: "),
                    (Some(file), None) => format!("{file}: "),
                    _ => String::new(),
                };
                people(&format!("{severity}: {}{}\n", escaped(&at), escaped(message)));
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn event(name: &str, fields: Value) {
    let mut line = Map::new();
    line.insert("event".into(), name.into());
    line.insert("time".into(), Timestamp::now().to_string().into());
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    print(&format!("{}\n", terminal::printable_json(&Value::Object(line).to_string())));
}

fn people(text: &str) {
    print(&terminal::printable(text));
}

/// A closed standard output ends nothing: the mesh goes on.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn table(services: &[Entry]) -> String {
    if services.is_empty() {
        return "no Service is meshed yet; add a manifest of one\n".into();
    }
    let width = services.iter().map(|entry| entry.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  {:15}  PORTS\n", "NAME", "ADDRESS");
    for entry in services {
        text += &format!("{:width$}  {:15}  {}\n", entry.name, address(entry), ports(entry));
    }
    text
}

fn line(entry: &Entry) -> String {
    format!("{}  {}  {}", entry.name, address(entry), ports(entry))
}

fn address(entry: &Entry) -> &str {
    entry.address.as_deref().unwrap_or("-")
}

fn ports(entry: &Entry) -> String {
    let one = |port: &Port| {
        let number =
            if port.listen == port.port { port.port.to_string() } else { format!("{} on {}", port.port, port.listen) };
        format!("{number}/{}", port.protocol)
    };
    let list = entry.ports.iter().map(one).collect::<Vec<_>>().join(", ");
    if entry.bypass { format!("{list} (bypassed)") } else { list }
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(_, port)| port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_where_a_port_moved() {
        let entry = Entry {
            name: "web.shop.maesh".into(),
            address: Some("127.77.0.1".into()),
            ports: vec![Port { name: Some("http".into()), port: 80, listen: 8080, protocol: "http".into() }],
            bypass: false,
        };
        assert_eq!(
            table(&[entry]),
            "NAME            ADDRESS          PORTS\nweb.shop.maesh  127.77.0.1       80 on 8080/http\n"
        );
    }
}
