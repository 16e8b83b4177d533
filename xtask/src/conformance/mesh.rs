//! `maesh dev` with Services for a suite.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use maesh_test_support::until;
use tempfile::TempDir;

use crate::bench::rivals::start_maesh;
use crate::measure::{Running, free_tcp_port};

/// The first range of addresses that may be used, counted as [`start_maesh`] does.
const FIRST_RANGE: u32 = 40;
/// How many there are: several runs may take place at once.
const RANGES: u32 = 100;

/// Longest time until the mesh has counted what it has carried.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Service of the namespace `shop`, with one endpoint.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) endpoint: SocketAddr,
    /// What the endpoint speaks, as `appProtocol` says it.
    pub(super) protocol: &'static str,
}

/// The mesh that is asked. Ended when dropped.
pub(super) struct Mesh {
    _process: Running,
    _folder: TempDir,
    /// Where Services are served.
    pub(super) address: SocketAddr,
    admin: SocketAddr,
}

impl Mesh {
    /// Starts `maesh` with the Service `web`. Its requests go to `endpoint`, which speaks `protocol` (as `appProtocol` says
    /// it).
    pub(super) fn start(maesh: &Path, endpoint: SocketAddr, protocol: &'static str) -> Result<Self> {
        Self::serve(maesh, &[Service { name: "web".to_owned(), endpoint, protocol }])
    }

    /// Starts `maesh` with Services on one address and port. That address is the first one's ClusterIP, so that a caller of
    /// it needs no name.
    pub(super) fn serve(maesh: &Path, services: &[Service]) -> Result<Self> {
        let index = FIRST_RANGE + std::process::id() % RANGES;
        let address = SocketAddr::from((Ipv4Addr::new(127, u8::try_from(77 + index)?, 0, 1), free_tcp_port()?));
        let folder = tempfile::Builder::new().prefix("maesh-conformance").tempdir()?;
        let file = folder.path().join("services.yaml");
        let mut ip = address.ip().to_string();
        let mut manifests = Vec::new();
        for (index, service) in services.iter().enumerate() {
            manifests.push(manifest(service, &ip, address.port()));
            ip = format!("10.96.0.{}", index + 1);
        }
        fs::write(&file, manifests.join("---\n"))?;
        let (mut process, ready) = start_maesh(Command::new(maesh), "maesh", usize::try_from(index)?, &file)?;
        process.wait_for_port(address)?;
        let admin = ready["admin"].as_str().and_then(|admin| admin.parse().ok());
        let admin = admin.with_context(|| format!("no address for metrics: {ready}"))?;
        Ok(Self { _process: process, _folder: folder, address, admin })
    }

    /// Bytes after the heads of requests, and of responses, that `service` has had until now.
    pub(super) fn carried(&self, service: &str) -> Result<[u64; 2]> {
        let mut stream = TcpStream::connect_timeout(&self.admin, PATIENCE).context("metrics")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).context("metrics")?;
        let sum = |name: &str| {
            let lines = metrics.lines().filter(|line| line.starts_with(name));
            let of_service = lines.filter(|line| line.contains(&format!("service=\"{service}\"")));
            of_service.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        Ok([sum("maesh_http_request_body_bytes_total{"), sum("maesh_http_response_body_bytes_total{")])
    }

    /// What `service` was sent and has sent since it had carried `before`, once both are more than nothing.
    pub(super) fn carried_since(&self, service: &str, before: [u64; 2]) -> Result<[u64; 2]> {
        let mut now = Ok(before);
        until(PATIENCE, || {
            now = self.carried(service);
            now.as_ref().is_ok_and(|now| now[0] > before[0] && now[1] > before[1])
        });
        let now = now?;
        Ok([now[0] - before[0], now[1] - before[1]])
    }
}

fn manifest(service: &Service, ip: &str, port: u16) -> String {
    let Service { name, endpoint, protocol } = service;
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: {ip}, clusterIPs: [{ip}], ports: [{{name: web, port: {port}, appProtocol: {protocol}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-a, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\n\
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
