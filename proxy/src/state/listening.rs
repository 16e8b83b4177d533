//! What a listener serves, as its connections read it.

use arc_swap::ArcSwap;
use maesh_config::model::{Listener, Transport};

use super::{Claims, directory_name};

/// An open listener, as its connections see it.
pub(crate) struct Listening {
    /// What it serves; changes while it is open.
    pub(crate) facts: ArcSwap<Facts>,
}

/// What a listener serves.
pub(crate) struct Facts {
    /// The port it is bound to.
    pub(crate) port: u16,
    /// Streams or datagrams.
    pub(crate) transport: Transport,
    /// The Service (as the directory has it) and port to which everything belongs.
    pub(crate) owner: Option<(Box<str>, u16)>,
    /// HTTP is served.
    pub(crate) http: bool,
    /// TLS is routed by the name that the caller says.
    pub(crate) tls: bool,
    /// Hosts that routes claim.
    pub(crate) hosts: Claims,
    /// Server names of TLS that routes claim.
    pub(crate) sni: Claims,
}

impl From<&Listener> for Facts {
    fn from(listener: &Listener) -> Self {
        Self {
            port: listener.port,
            transport: listener.transport,
            owner: listener.owner.as_ref().map(|(service, port)| (directory_name(service), *port)),
            http: listener.http,
            tls: listener.tls,
            hosts: Claims::new(&listener.hosts),
            sni: Claims::new(&listener.sni),
        }
    }
}
