//! An own address as it is written into its Service: the name, and the annotation that says whose each port is.

use maesh_config::{ServiceName, model::Transport};
use serde::{Deserialize, Serialize};

use super::{Entry, Ports, SHARED};

const PREFIX: &str = "maesh-own-";
/// Name of the one that names of addressing mode `service` share.
const SHARED_NAME: &str = "maesh-shared";

/// A port as the annotation has it.
#[derive(Debug, Serialize, Deserialize)]
struct WrittenPort {
    service: String,
    port: u16,
    udp: bool,
    listen: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaving: Option<u64>,
}

/// The name of an address's Service.
pub fn name(number: u32) -> String {
    if number == SHARED {
        return SHARED_NAME.to_owned();
    }
    format!("{PREFIX}{number}")
}

/// The number of the own address that a Service of this name is.
pub fn number(name: &str) -> Option<u32> {
    if name == SHARED_NAME {
        return Some(SHARED);
    }
    let number: u32 = name.strip_prefix(PREFIX)?.parse().ok()?;
    // `maesh-own-07` is somebody else's.
    (self::name(number) == name).then_some(number)
}

/// The ports as the annotation has them; [`read_ports`] reads it.
pub fn write_ports(ports: &Ports) -> String {
    let written = |((port, transport), entry): (&(u16, Transport), &Entry)| WrittenPort {
        service: entry.service.to_string(),
        port: *port,
        udp: *transport == Transport::Udp,
        listen: entry.listen,
        leaving: entry.leaving,
    };
    let written: Vec<_> = ports.iter().map(written).collect();
    // Numbers and strings always have a form in JSON.
    serde_json::to_string(&written).unwrap_or_default()
}

/// Whose each port is, as [`write_ports`] wrote it.
pub fn read_ports(text: &str) -> Option<Ports> {
    let written: Vec<WrittenPort> = serde_json::from_str(text).ok()?;
    let entry = |written: WrittenPort| {
        let (namespace, name) = written.service.split_once('/')?;
        let transport = if written.udp { Transport::Udp } else { Transport::Tcp };
        let entry =
            Entry { service: ServiceName::new(namespace, name), listen: written.listen, leaving: written.leaving };
        Some(((written.port, transport), entry))
    };
    written.into_iter().map(entry).collect()
}
