//! The program ends while callers of HTTP/1.1 keep connections: who has sent a request is answered.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::support::{
    Dev, PATIENCE,
    backend::Backend,
    manifest::{save, service, slices},
};

/// Kept connections. Each is a try at the moment in which the program sees its request.
const KEPT: usize = 300;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: web.shop.maesh\r\n\r\n";

/// A response's head and body.
fn answer(stream: &mut TcpStream) -> std::io::Result<String> {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        text.push(char::from(byte[0]));
    }
    text.make_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or_else(|| panic!("no length: {text}"))];
    stream.read_exact(&mut body)?;
    Ok(text)
}

fn kept(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(REQUEST).unwrap();
    assert!(answer(&mut stream).unwrap().starts_with("http/1.1 200"));
    stream
}

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
    // The second is idle for long enough to have given its buffers back.
    for idle in [Duration::ZERO, Duration::from_secs(4)] {
        let folder = tempfile::tempdir().unwrap();
        let web = Backend::http("web");
        let web_slices = slices("shop", "web", &[web.address]);
        save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &web_slices));
        let mut dev = Dev::start(folder.path());
        let at = dev.served_at("web.shop.maesh");
        let mut callers: Vec<TcpStream> = (0..KEPT).map(|_| kept(at)).collect();
        be_idle(idle);
        dev.signal("STOP");
        // An end of idle connections spares those that were used within a second.
        be_idle(Duration::from_millis(1500));
        callers.iter_mut().for_each(|caller| caller.write_all(REQUEST).unwrap());
        dev.signal("TERM");
        dev.signal("CONT");
        let answers: Vec<_> = callers.iter_mut().map(answer).collect();
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        let first = answers.iter().find_map(|answer| answer.as_ref().err());
        assert_eq!(failed, 0, "of {KEPT}, idle for {idle:?}; {first:?}");
        // Some may be answered before the program hears that it is to end.
        let told = answers.iter().flatten().filter(|text| text.contains("connection: close")).count();
        println!("idle for {idle:?}: {told} of {KEPT} were told to close");
        assert_eq!(dev.wait().code(), Some(0), "{}", dev.logs());
    }
}
