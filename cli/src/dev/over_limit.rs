//! Ports that are not served because the process may not open more files.
//!
//! A proxy has one file for each port that it listens on, and a bound on them. Whoever gives `maesh dev` more ports than fit
//! gets the rest served, one warning in all, and, for scripts, one for each Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use maesh_compiler::{
    compile::TableEntry,
    diagnostic::{Diagnostic, ObjectRef, Reason},
};
use maesh_config::ServiceName;

/// What the proxy's message says where that is why it did not open a port: the stream carries reasons as text.
const TOO_MANY: &str = "the most for its limit of";

/// Whether this is about a port that does not fit.
pub fn is_over_limit(found: &Diagnostic) -> bool {
    found.reason == Reason::ListenFailed && found.message.contains(TOO_MANY)
}

/// The ports that do not fit, by Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverLimit(BTreeMap<ServiceName, BTreeSet<u16>>);

impl OverLimit {
    /// What `diagnostics` say of the Services in `table`; HTTP Services have the address `shared`.
    pub fn of(diagnostics: &[Diagnostic], table: &[TableEntry], shared: IpAddr) -> Self {
        let mut this = Self::default();
        let number = |found: &Diagnostic| found.value.as_deref().and_then(|value| value.parse::<u16>().ok());
        let mut shared_ports = BTreeSet::new();
        for found in diagnostics.iter().filter(|found| is_over_limit(found)) {
            match (&found.object.namespace, number(found)) {
                (Some(namespace), Some(port)) => {
                    this.add(ServiceName::new(namespace.clone(), found.object.name.clone()), port);
                }
                // A shared port is the proxy's: every Service that has it is concerned.
                (None, Some(port)) => {
                    shared_ports.insert(port);
                }
                (_, None) => {}
            }
        }
        for entry in table.iter().filter(|entry| !entry.settled && entry.address == Some(shared)) {
            for port in entry.ports.iter().filter(|port| shared_ports.contains(&port.listen)) {
                this.add(entry.service.clone(), port.port);
            }
        }
        this
    }

    fn add(&mut self, service: ServiceName, port: u16) {
        self.0.entry(service).or_default().insert(port);
    }

    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether ports of this Service do not fit.
    pub fn has(&self, service: &ServiceName) -> bool {
        self.0.contains_key(service)
    }

    /// One warning for each Service that is not in `before` in the same way.
    pub fn of_each<'a>(&'a self, before: &'a Self, open_files: usize) -> impl Iterator<Item = Diagnostic> + 'a {
        let news = self.0.iter().filter(|(service, ports)| before.0.get(*service) != Some(*ports));
        news.map(move |(service, ports)| {
            let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            let text = format!(
                "port {list} is not served: this maesh dev has as many listening ports as its limit of {open_files} open \
                 files allows. The Service's name answers its plain address. Raise the limit (ulimit -n) and start again, \
                 or mesh fewer ports."
            );
            let object = ObjectRef::new("Service", &service.namespace, &service.name);
            let warning = Diagnostic::warning(Reason::ListenFailed, object, text);
            warning.field("spec.ports").value(list).using("its plain address")
        })
    }

    /// All of them in one sentence.
    pub fn summary(&self, open_files: usize) -> Diagnostic {
        let ports: usize = self.0.values().map(BTreeSet::len).sum();
        let message = format!(
            "{} of {} {} not served: this maesh dev has as many listening ports as its limit of {open_files} open files \
             allows. The names of these Services answer their plain addresses. Raise the limit (ulimit -n {}) and start \
             again, or mesh fewer ports.",
            counted(ports, "port"),
            counted(self.0.len(), "Service"),
            if ports == 1 { "is" } else { "are" },
            enough(open_files, ports)
        );
        Diagnostic {
            message: message.into(),
            ..Diagnostic::warning(Reason::ListenFailed, ObjectRef::new("Process", "", "maesh dev"), "")
        }
        .value(ports.to_string())
        .using("their plain addresses")
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A limit with which `more` ports would fit: at most half of the files that are left are for ports.
fn enough(open_files: usize, more: usize) -> usize {
    (open_files + 4 * more).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use maesh_compiler::compile::TablePort;
    use maesh_config::model::Protocol;

    use super::*;

    const SHARED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 77, 0, 1));

    fn entry(name: &str, listen: u16, settled: bool) -> TableEntry {
        let ports = vec![TablePort { name: None, port: 80, listen, protocol: Protocol::Http }];
        let service = ServiceName::new("shop", name);
        TableEntry { service, address: Some(SHARED), ports, bypass: false, settled }
    }

    fn failed(object: ObjectRef, port: &str, why: &str) -> Diagnostic {
        Diagnostic::warning(Reason::ListenFailed, object, why).value(port)
    }

    #[test]
    fn shared_ports_are_told_of_the_services_that_have_them() {
        let why = "this proxy has 2 listeners already, the most for its limit of 9 open files";
        let found = [
            failed(ObjectRef::new("Proxy", "", "local"), "8080", why),
            failed(ObjectRef::new("Service", "shop", "db"), "5432", why),
            failed(ObjectRef::new("Service", "shop", "taken"), "5433", "cannot listen on 127.0.0.1:5433"),
        ];
        let table = [entry("web", 8080, false), entry("other", 8081, false), entry("own", 8080, true)];
        let over = OverLimit::of(&found, &table, SHARED);
        let names: Vec<_> = over.0.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["shop/db", "shop/web"]);
        assert!(over.summary(9).message.starts_with("2 ports of 2 Services are not served"), "{}", over.summary(9));
        let each: Vec<_> = over.of_each(&OverLimit::default(), 9).map(|found| found.object.to_string()).collect();
        assert_eq!(each, ["Service shop/db", "Service shop/web"]);
        assert_eq!(over.of_each(&over, 9).count(), 0, "told already");
    }
}
