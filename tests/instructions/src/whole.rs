//! Whole requests and connections through a running proxy. Its thread that carries them is counted as a whole: once for some of
//! them and once for twice as many, so that what it takes to start does not matter.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, ensure};
use maesh_config::model::Protocol;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    http2,
    mesh::{ANSWER, Access, RunningMesh},
};

/// One kind.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    /// What it is called.
    pub(crate) name: &'static str,
    protocol: Protocol,
    access: Access,
    /// Sends so many.
    send: fn(SocketAddr, usize) -> Result<()>,
}

/// The kinds.
pub(crate) const WHOLE: &[Whole] = &[
    Whole { name: "whole: request of HTTP/1.1", protocol: Protocol::Http, access: Access::Off, send: requests },
    Whole {
        name: "whole: request of HTTP/1.1 that access control admits to everything",
        protocol: Protocol::Http,
        access: Access::Everything,
        send: requests,
    },
    Whole {
        name: "whole: request of HTTP/1.1 that access control admits by a path and a method",
        protocol: Protocol::Http,
        access: Access::ByPath,
        send: requests,
    },
    Whole { name: "whole: request of HTTP/2", protocol: Protocol::Http, access: Access::Off, send: http2::requests },
    Whole {
        name: "whole: connection with one request of HTTP/1.1",
        protocol: Protocol::Http,
        access: Access::Off,
        send: connections,
    },
    Whole { name: "whole: connection of TCP", protocol: Protocol::Tcp, access: Access::Off, send: connections },
];

/// As wrk sends it.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: web.shop.maesh\r\n\r\n";

impl Whole {
    /// Sends `times` of them, one after the other, and ends the process: how the proxy would end does not count.
    pub(crate) fn run(&self, times: usize) -> Result<()> {
        pin()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mesh = RunningMesh::start(self.protocol, self.access).await?;
            let (send, address) = (self.send, mesh.address);
            tokio::task::spawn_blocking(move || send(address, times)).await??;
            std::process::exit(0)
        })
    }
}

/// Keeps all threads on one processor: then they take turns in the same order in each run.
fn pin() -> Result<()> {
    let allowed = sched_getaffinity(None).context("reading the processors")?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut one = CpuSet::new();
    // Another one for each process, so that several run side by side.
    one.set(allowed[std::process::id() as usize % allowed.len()]);
    sched_setaffinity(None, &one).context("staying on one processor")
}

/// All on one connection.
fn requests(address: SocketAddr, times: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    (0..times).try_for_each(|_| request(&mut stream))
}

/// Each on a connection of its own, which the caller ends.
fn connections(address: SocketAddr, times: usize) -> Result<()> {
    for _ in 0..times {
        let mut stream = TcpStream::connect(address)?;
        request(&mut stream)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        ensure!(stream.read(&mut [0])? == 0, "more than an answer");
    }
    Ok(())
}

fn request(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(REQUEST)?;
    let body = ANSWER.rsplit(|byte| *byte == b'\n').next().context("the answer has a body")?;
    let (mut answer, mut length) = ([0; 4096], 0);
    while !answer[..length].ends_with(body) {
        let read = stream.read(&mut answer[length..])?;
        ensure!(read > 0, "no whole answer: {}", String::from_utf8_lossy(&answer[..length]));
        length += read;
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer[..length]));
    Ok(())
}
