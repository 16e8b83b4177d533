//! What stands behind the Services of the pictures: endpoints that answer, are slow or fail, as the phase says. Their threads
//! end with this process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::stage::{Phase, Stage, mixed};

/// An endpoint of HTTP. Those with different numbers fail at different times; only `web`'s have low ones.
pub(super) fn http(stage: &Arc<Stage>, number: u64) -> Result<SocketAddr> {
    let stage = Arc::clone(stage);
    let requests = Arc::new(AtomicU64::new(number * 1_000_003));
    streams(move |stream| {
        let mut reader = BufReader::new(stream);
        while !reader.fill_buf()?.is_empty() {
            let length = length_of_body(&mut reader)?;
            io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
            let (status, delay) = behaviour(stage.phase(), number, mixed(requests.fetch_add(1, Ordering::Relaxed)));
            stage.pause(delay);
            let body = "x".repeat(1500);
            let head = format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n", body.len());
            reader.get_mut().write_all((head + &body).as_bytes())?;
        }
        Ok(())
    })
}

/// The status that an endpoint answers, and after what time; `dice` is what looks random about it.
fn behaviour(phase: Phase, number: u64, dice: u64) -> (u16, Duration) {
    let usual = Duration::from_micros(2_000 + dice % 12_000);
    match (phase, number) {
        (Phase::OneFails, 0) if dice % 10 < 7 => (503, usual),
        (Phase::AllFail, 0..3) => (503, usual),
        (Phase::Crowd, 0..3) => (200, usual * 20),
        (_, 1) if dice % 100 < 3 => (200, usual + Duration::from_millis(120)),
        _ => (200, usual),
    }
}

/// Reads the head of a request; the length of its body.
fn length_of_body(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap_or(0),
            Some(_) => {}
            None if line.starts_with(['\r', '\n']) || line.is_empty() => return Ok(length),
            None => {}
        }
    }
}

/// An endpoint of TCP that returns what it reads.
pub(super) fn echo() -> Result<SocketAddr> {
    streams(|stream| io::copy(&mut stream.try_clone()?, &mut &stream).map(drop))
}

/// An endpoint of UDP that returns what it receives.
pub(super) fn datagrams() -> Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("an endpoint of UDP")?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        // An error is that of one datagram: its sender is gone.
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
    });
    Ok(address)
}

/// Serves each connection in a thread; an error is the end of the connection.
fn streams(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("an endpoint")?;
    let address = listener.local_addr()?;
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || stream.set_nodelay(true).and_then(|()| serve(stream)));
        }
    });
    Ok(address)
}
