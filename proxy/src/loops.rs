//! Loops: connections of the mesh that lead back to the mesh.
//!
//! The compiler leaves the mesh's own addresses out of endpoints, and [`Dialable`] refuses them once more. What
//! leads back by another way is noticed here: an opaque stream whose caller's end is one that this proxy opened itself.
//! HTTP is counted in hops (`http::hops`). What rewrites addresses on the way back is bounded by the share of one caller.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;

/// Which endpoints may be dialled.
#[derive(Clone, Debug)]
pub(crate) struct Dialable {
    /// Loopback is an ordinary address here (`maesh dev`).
    pub(crate) loopback: bool,
    /// The proxy's own addresses.
    pub(crate) own: Vec<IpAddr>,
    /// What the proxy listens on.
    pub(crate) listening: HashSet<SocketAddr>,
}

impl Dialable {
    /// The rule before anything is listened on.
    pub(crate) fn new(shared: &[IpAddr], loopback: bool) -> Self {
        let own = shared.iter().map(IpAddr::to_canonical).filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
        Self { loopback, own: own.collect(), listening: HashSet::new() }
    }

    /// Whether `endpoint` is an address that an endpoint can have, and none of the proxy's own.
    pub(crate) fn allows(&self, endpoint: SocketAddr) -> bool {
        let ip = endpoint.ip().to_canonical();
        maesh_config::undialable(ip, self.loopback).is_none()
            && !self.own.contains(&ip)
            && !self.listening.contains(&SocketAddr::new(ip, endpoint.port()))
    }
}

/// Ends of opaque streams on the proxy's own addresses: those that it opened itself, and those that arrived. One that is
/// both leads in a circle.
#[derive(Debug)]
pub(crate) struct OwnEnds {
    /// The proxy's own addresses. Loopback is not among them: others dial from there as well.
    own: Vec<IpAddr>,
    ends: Arc<Mutex<HashSet<SocketAddr>>>,
}

/// One end, for as long as its stream is open.
#[derive(Debug)]
pub(crate) struct OwnEnd {
    address: SocketAddr,
    of: Arc<Mutex<HashSet<SocketAddr>>>,
}

/// The stream leads in a circle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Circle;

impl OwnEnds {
    pub(crate) fn new(shared: &[IpAddr]) -> Self {
        Self { own: Dialable::new(shared, false).own, ends: Arc::default() }
    }

    /// Whether a stream can be one of the proxy's own by this address.
    pub(crate) fn concerns(&self, address: IpAddr) -> bool {
        self.own.contains(&address.to_canonical())
    }

    /// Whether there is any address by which a stream can be the proxy's own.
    pub(crate) fn any(&self) -> bool {
        !self.own.is_empty()
    }

    /// Notes the end that dials of one stream: the local one of a stream that was opened, or the remote one of a stream
    /// that arrived. `None` when it is no address of the proxy.
    ///
    /// # Errors
    /// When it was noted already: the stream that was opened is the one that arrived.
    pub(crate) fn note(&self, dialling: SocketAddr) -> Result<Option<OwnEnd>, Circle> {
        let address = SocketAddr::new(dialling.ip().to_canonical(), dialling.port());
        if !self.concerns(address.ip()) {
            return Ok(None);
        }
        if !self.ends.lock().insert(address) {
            return Err(Circle);
        }
        Ok(Some(OwnEnd { address, of: self.ends.clone() }))
    }
}

impl Drop for OwnEnd {
    fn drop(&mut self) {
        self.of.lock().remove(&self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_may_be_dialled() {
        let shared = ["10.244.1.9".parse().expect("an address"), "fd00::9".parse().expect("an address")];
        let mut rule = Dialable::new(&shared, false);
        for (endpoint, want) in [
            ("10.244.1.8:80", true),
            ("10.244.1.9:80", false),
            ("10.244.1.9:5383", false),
            ("[::ffff:10.244.1.9]:80", false),
            ("[fd00::9]:80", false),
            ("[fd00::8]:80", true),
            ("127.0.0.1:80", false),
            ("0.0.0.0:80", false),
        ] {
            assert_eq!(rule.allows(at(endpoint)), want, "{endpoint}");
        }
        rule = Dialable::new(&["127.77.0.1".parse().expect("an address")], true);
        rule.listening.insert(at("127.77.0.1:8080"));
        for (endpoint, want) in [
            ("127.0.0.1:80", true),
            ("127.77.0.1:8081", true),
            ("127.77.0.1:8080", false),
            ("[::ffff:127.77.0.1]:8080", false),
        ] {
            assert_eq!(rule.allows(at(endpoint)), want, "{endpoint}");
        }
    }

    #[test]
    fn a_stream_that_comes_back_is_noticed_whichever_end_is_seen_first() {
        let ends = OwnEnds::new(&["10.244.1.9".parse().expect("an address")]);
        assert!(ends.note(at("10.244.1.7:40000")).expect("another's").is_none());
        let opened = ends.note(at("10.244.1.9:40000")).expect("the first").expect("own");
        assert_eq!(ends.note(at("[::ffff:10.244.1.9]:40000")).expect_err("the same stream"), Circle);
        assert!(ends.note(at("10.244.1.9:40001")).expect("another").is_some());
        drop(opened);
        assert!(ends.note(at("10.244.1.9:40000")).expect("the port is used again").is_some());
    }
}
