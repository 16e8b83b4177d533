use std::{fmt, net::IpAddr, sync::Arc};

use serde::Serialize;

use super::Transport;
use crate::ServiceName;

/// Stable identity of a listener: `shared/8080/tcp`, `127.77.3.4/5432/tcp`, `[fd00::1]/53/udp`,
/// `own/33005/tcp/shop/db/5432`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ListenerId(pub Arc<str>);

impl ListenerId {
    /// The identity of what listens on `bind`, `port` and `transport`.
    pub fn new(bind: Bind, port: u16, transport: Transport) -> Self {
        let transport = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let text = match bind {
            Bind::Shared => format!("shared/{port}/{transport}"),
            Bind::Address(IpAddr::V4(address)) => format!("{address}/{port}/{transport}"),
            Bind::Address(IpAddr::V6(address)) => format!("[{address}]/{port}/{transport}"),
        };
        Self(text.into())
    }

    /// The identity of `port` on the proxies' own addresses while it carries nothing but port `number` of `service`.
    /// With its owner in it: that a proxy listens for one owner says nothing of the next.
    pub fn owned(port: u16, transport: Transport, service: &ServiceName, number: u16) -> Self {
        let transport = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        Self(format!("own/{port}/{transport}/{service}/{number}").into())
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One port on which proxies listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Listener {
    /// Its identity, from bind, port and transport.
    pub id: ListenerId,
    /// The address it is bound to.
    pub bind: Bind,
    /// The port it is bound to.
    pub port: u16,
    /// Streams or datagrams.
    pub transport: Transport,
    /// The Service and its port to which everything that arrives here belongs (an own address, or a port of the
    /// pool behind one); `None` on a shared port, where a request says its name.
    pub owner: Option<(ServiceName, u16)>,
    /// HTTP is served here.
    pub http: bool,
    /// TLS is routed by SNI here: some Service has a TCP port of this number on the shared address, or the routes of the owner ask
    /// for server names.
    pub tls: bool,
    /// Hosts that rules claim on this port. Mesh names need no claim. Sorted by host.
    pub hosts: Vec<Claim>,
    /// SNI names that rules claim on this port. Sorted by host.
    pub sni: Vec<Claim>,
}

/// Where a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bind {
    /// The proxy's own addresses, shared by all Services.
    Shared,
    /// One address that is its alone (`maesh dev`).
    Address(IpAddr),
}

/// A host name that a Service's rule claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Claim {
    /// Lower case, no trailing dot; a leading `*.` stands for one or more labels.
    pub host: Arc<str>,
    /// Who gets what arrives for it.
    pub service: ServiceName,
}
