//! The program ends while callers of HTTP/1.1 keep connections: who has sent a request is answered.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::time::{Duration, Instant};

use crate::support::{
    Dev,
    backend::Backend,
    http::Client,
    manifest::{save, service, slices},
};

/// Kept connections. Each is a try at the moment in which the program sees its request.
const KEPT: usize = 300;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: web.shop.maesh\r\n\r\n";

/// Lets the connections be idle for so long.
fn be_idle(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// The program has no processor for a while, as on a node that is overloaded. Requests arrive, and the order to end: both wait
/// when it goes on. Connections that have been idle for long are ended first, but not those on which a request has arrived.
#[test]
fn a_request_that_arrived_before_the_end_is_answered() {
    // After four seconds a connection has given its buffers back.
    for idle in [Duration::ZERO, Duration::from_secs(4)] {
        let folder = tempfile::tempdir().unwrap();
        let web = Backend::http("web");
        let web_slices = slices("shop", "web", &[web.address]);
        save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &web_slices));
        let mut dev = Dev::start(folder.path());
        let at = dev.served_at("web.shop.maesh");
        let mut callers: Vec<Client> = (0..KEPT).map(|_| Client::connect(at).unwrap()).collect();
        callers.iter_mut().for_each(|caller| assert_eq!(caller.send(REQUEST).unwrap().status, 200));
        be_idle(idle);
        dev.signal("STOP");
        // An end of idle connections spares those that were used within a second.
        be_idle(Duration::from_millis(1500));
        callers.iter_mut().for_each(|caller| caller.write(REQUEST).unwrap());
        dev.signal("TERM");
        dev.signal("CONT");
        let answers: Vec<_> = callers.iter_mut().map(Client::answer).collect();
        let failed: Vec<_> =
            answers.iter().filter(|answer| !matches!(answer, Ok(answer) if answer.status == 200)).collect();
        assert!(failed.is_empty(), "idle for {idle:?}: {} of {KEPT} failed, first {:?}", failed.len(), failed[0]);
        assert_eq!(dev.wait().code(), Some(0), "{}", dev.logs());
    }
}
