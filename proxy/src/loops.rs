//! Loops: connections of the mesh that lead back to the mesh.
//!
//! The compiler leaves the mesh's own addresses out of endpoints, and [`Dialable`] refuses them once more. What
//! leads back by another way is noticed here: an opaque stream whose caller's end is one that this proxy opened itself.
//! HTTP is counted in hops (`http::hops`). What rewrites addresses on the way back is bounded by the share of one caller.

use std::{
    collections::{HashMap, HashSet},
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

/// Opaque streams that begin at one of the proxy's own addresses: those that it opened itself, and those that arrived.
/// An arrived one that begins where an opened one does is that one, and leads in a circle.
///
/// Where a stream ends says nothing: the way back may have rewritten it. Where it begins does not identify it either,
/// since the system gives one local port to several connections with different remote ends. So each side is counted.
#[derive(Debug)]
pub(crate) struct OwnEnds {
    /// The proxy's own addresses. Loopback is not among them: others dial from there as well.
    own: Vec<IpAddr>,
    ends: Arc<Mutex<HashMap<SocketAddr, Streams>>>,
}

/// How many streams begin at one address and port.
#[derive(Debug, Default)]
struct Streams {
    opened: u32,
    arrived: u32,
}

/// What the proxy has to do with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamOrigin {
    /// It opened the stream.
    Opened,
    /// It accepted the stream.
    Arrived,
}

impl Streams {
    fn count(&mut self, way: StreamOrigin) -> &mut u32 {
        match way {
            StreamOrigin::Opened => &mut self.opened,
            StreamOrigin::Arrived => &mut self.arrived,
        }
    }
}

/// One counted stream, for as long as it is open.
#[derive(Debug)]
pub(crate) struct OwnEnd {
    begins: SocketAddr,
    way: StreamOrigin,
    of: Arc<Mutex<HashMap<SocketAddr, Streams>>>,
}

/// The stream leads in a circle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LoopDetected;

impl OwnEnds {
    pub(crate) fn new(shared: &[IpAddr]) -> Self {
        Self { own: Dialable::new(shared, false).own, ends: Arc::default() }
    }

    /// Whether there is any address by which a stream can be the proxy's own.
    pub(crate) fn any(&self) -> bool {
        !self.own.is_empty()
    }

    /// Counts a stream that begins at `begins`: the local end of one that was opened, or the remote end of one that
    /// arrived. `None` when that is no address of the proxy.
    ///
    /// # Errors
    /// When a stream of the other way begins there: it is the same one.
    pub(crate) fn note(&self, way: StreamOrigin, begins: SocketAddr) -> Result<Option<OwnEnd>, LoopDetected> {
        let begins = SocketAddr::new(begins.ip().to_canonical(), begins.port());
        if !self.own.contains(&begins.ip()) {
            return Ok(None);
        }
        let mut ends = self.ends.lock();
        let streams = ends.entry(begins).or_default();
        let other = match way {
            StreamOrigin::Opened => streams.arrived,
            StreamOrigin::Arrived => streams.opened,
        };
        if other > 0 {
            return Err(LoopDetected);
        }
        *streams.count(way) += 1;
        Ok(Some(OwnEnd { begins, way, of: self.ends.clone() }))
    }
}

impl Drop for OwnEnd {
    fn drop(&mut self) {
        let mut ends = self.of.lock();
        let Some(streams) = ends.get_mut(&self.begins) else { return };
        *streams.count(self.way) -= 1;
        if streams.opened + streams.arrived == 0 {
            ends.remove(&self.begins);
        }
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
        assert!(ends.note(StreamOrigin::Arrived, at("10.244.1.7:40000")).expect("another's").is_none());
        for (first, second) in
            [(StreamOrigin::Opened, StreamOrigin::Arrived), (StreamOrigin::Arrived, StreamOrigin::Opened)]
        {
            let seen = ends.note(first, at("10.244.1.9:40000")).expect("the first").expect("own");
            assert_eq!(ends.note(second, at("[::ffff:10.244.1.9]:40000")).expect_err("the same stream"), LoopDetected);
            assert!(ends.note(second, at("10.244.1.9:40001")).expect("another").is_some());
            drop(seen);
            assert!(ends.note(second, at("10.244.1.9:40000")).expect("the port is used again").is_some());
        }
        assert!(ends.ends.lock().is_empty());
    }

    /// The system gives a local port to several connections at once when they lead to different places.
    #[test]
    fn streams_to_different_endpoints_may_share_a_local_port() {
        let ends = OwnEnds::new(&["10.244.1.9".parse().expect("an address")]);
        let one = ends.note(StreamOrigin::Opened, at("10.244.1.9:40000")).expect("no circle");
        let two = ends.note(StreamOrigin::Opened, at("10.244.1.9:40000")).expect("no circle");
        drop(one);
        assert_eq!(
            ends.note(StreamOrigin::Arrived, at("10.244.1.9:40000")).expect_err("the second is still open"),
            LoopDetected
        );
        drop(two);
        assert!(ends.ends.lock().is_empty());
    }
}
