//! `maesh dev` with Services for a suite.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::bench::rivals::start_maesh;
use crate::measure::{Running, free_tcp_port};

/// The first range of addresses that may be used, counted as [`start_maesh`] does.
const FIRST_RANGE: u32 = 40;
/// How many there are: several runs may take place at once.
const RANGES: u32 = 100;

/// The mesh that is asked. Ended when dropped.
pub(super) struct Mesh {
    _process: Running,
    _folder: TempDir,
    /// Where Services are served.
    pub(super) address: SocketAddr,
}

impl Mesh {
    /// Starts `maesh` with a Service on the address itself, so that a caller needs no name. Its requests go to `endpoint`,
    /// which speaks `protocol` (as `appProtocol` says it).
    pub(super) fn start(maesh: &Path, endpoint: SocketAddr, protocol: &str) -> Result<Self> {
        let index = FIRST_RANGE + std::process::id() % RANGES;
        let address = SocketAddr::from((Ipv4Addr::new(127, u8::try_from(77 + index)?, 0, 1), free_tcp_port()?));
        let folder = tempfile::Builder::new().prefix("maesh-conformance").tempdir()?;
        let manifest = folder.path().join("web.yaml");
        fs::write(&manifest, service(address, endpoint, protocol))?;
        let (mut process, _) = start_maesh(Command::new(maesh), "maesh", usize::try_from(index)?, &manifest)?;
        process.wait_for_port(address)?;
        Ok(Self { _process: process, _folder: folder, address })
    }
}

fn service(address: SocketAddr, endpoint: SocketAddr, protocol: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{clusterIP: {ip}, clusterIPs: [{ip}], ports: [{{name: web, port: {port}, appProtocol: {protocol}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: web-a, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\n\
         ports: [{{name: web, port: {}}}]\nendpoints: [{{addresses: [{}]}}]\n",
        endpoint.port(),
        endpoint.ip()
    )
}

/// An endpoint that reads HTTP/1.1 requests to their end and answers each with a few bytes. Its threads end with this process.
pub(super) fn endpoint() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("an endpoint")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // An error is the end of the connection.
            std::thread::spawn(|| answer(stream));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while !reader.fill_buf()?.is_empty() {
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = line(&mut reader)?;
            let Some((name, value)) = line.split_once(':') else {
                match line.is_empty() {
                    true => break,
                    false => continue,
                }
            };
            match name {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "transfer-encoding" => is_chunked = true,
                _ => {}
            }
        }
        while is_chunked {
            let size = u64::from_str_radix(&line(&mut reader)?, 16).unwrap_or(0);
            skip(&mut reader, size)?;
            line(&mut reader)?;
            is_chunked = size > 0;
        }
        skip(&mut reader, length)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")?;
    }
    Ok(())
}

/// The next line, without its end.
fn line(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_ascii_lowercase())
}

fn skip(reader: &mut impl Read, bytes: u64) -> std::io::Result<u64> {
    std::io::copy(&mut reader.take(bytes), &mut std::io::sink())
}
