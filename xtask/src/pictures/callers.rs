//! The load: callers of HTTP, TCP and UDP, and clients of dns. Few requests a second, since curves are what is wanted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::mesh::Mesh;
use super::names::{A, AAAA, Dns, SOA, query};
use super::stage::{Phase, Stage};

/// How long a caller waits for a response.
const PATIENCE: Duration = Duration::from_secs(6);

/// What callers know.
struct World {
    stage: Arc<Stage>,
    dns: Dns,
    /// The addresses of a pod on the proxy's node, of one on another node, and of nobody that the mesh knows.
    from: [Ipv4Addr; 3],
    /// Asks only while a crowd is wanted.
    crowd: Ipv4Addr,
}

/// Starts all callers. Their threads end with the run, or with this process.
pub(super) fn start(mesh: &Mesh, stage: &Arc<Stage>) {
    let from = [mesh.near(), mesh.far(), mesh.place(3, 1)];
    let world = Arc::new(World { stage: Arc::clone(stage), dns: mesh.dns(), from, crowd: mesh.place(1, 2) });
    let begin = |count: usize, call: fn(&World, usize)| {
        for number in 0..count {
            let world = Arc::clone(&world);
            std::thread::spawn(move || call(&world, number));
        }
    };
    begin(4, |world, number| requests(world, "web", Duration::from_millis(100), number, false));
    begin(2, |world, number| requests(world, "cart", Duration::from_millis(150), number, false));
    begin(16, |world, number| requests(world, "web", Duration::from_millis(125), number, true));
    begin(1, |world, number| requests(world, "legacy", Duration::from_secs(2), number, false));
    begin(1, |world, number| requests(world, "nothing", Duration::from_secs(1), number, false));
    begin(2, |world, number| streams(world, "web", 9000, number));
    begin(2, |world, number| streams(world, "db", 5432, number));
    begin(2, |world, number| datagrams(world, "web", 8125, number));
    begin(2, |world, number| datagrams(world, "log", 5514, number));
    begin(1, |world, _| queries(world));
    begin(1, |world, _| queries_over_tcp(world));
}

/// A connection from the address `from`.
pub(super) fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((from, 0)))?;
    rustix::net::connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks a Service at a steady pace over a connection that is kept; failures are what the pictures show.
fn requests(world: &World, service: &str, pace: Duration, number: usize, is_crowd: bool) {
    let from = if is_crowd { world.crowd } else { world.from[number % world.from.len()] };
    // A name that does not exist has no address; the proxy is asked for it all the same.
    let known = if service == "nothing" { "cart" } else { service };
    let mut kept: Option<BufReader<TcpStream>> = None;
    for count in 0_usize.. {
        if !world.stage.pause(pace) {
            return;
        }
        if is_crowd && world.stage.phase() != Phase::Crowd {
            kept = None;
            continue;
        }
        let opened = || {
            let to = world.dns.resolve(from, &format!("{known}.shop.maesh"))?;
            connect(from, (to, 8080).into()).map(BufReader::new)
        };
        let connection = kept.take().map_or_else(opened, Ok);
        kept = connection.and_then(|connection| exchange(connection, service, count)).ok();
    }
}

/// Makes one request; every fifth sends a body.
fn exchange(mut connection: BufReader<TcpStream>, service: &str, count: usize) -> io::Result<BufReader<TcpStream>> {
    let body = if count.is_multiple_of(5) { "y".repeat(2000) } else { String::new() };
    let method = if body.is_empty() { "GET" } else { "PUT" };
    let request = format!(
        "{method} /{count} HTTP/1.1\r\nHost: {service}.shop.maesh\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.get_mut().write_all(request.as_bytes())?;
    let mut length = None;
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        let field = line.trim_end().split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        length = field.and_then(|(_, value)| value.trim().parse().ok()).or(length);
    }
    // Without a length the connection cannot be used again.
    let length: u64 = length.ok_or(io::ErrorKind::InvalidData)?;
    io::copy(&mut (&mut connection).take(length), &mut io::sink())?;
    Ok(connection)
}

/// Connects to a Service of TCP again and again, and exchanges some bytes each time.
fn streams(world: &World, service: &str, port: u16, number: usize) {
    let from = world.from[number % world.from.len()];
    while world.stage.pause(Duration::from_millis(700)) {
        // What goes wrong is counted by the proxy.
        let _ = world.dns.resolve(from, &format!("{service}.shop.maesh")).and_then(|to| {
            let mut stream = connect(from, (to, port).into())?;
            for _ in 0..5 {
                stream.write_all(&[7; 1024])?;
                stream.read_exact(&mut [0; 1024])?;
                world.stage.pause(Duration::from_millis(300));
            }
            Ok(())
        });
    }
}

/// Sends datagrams to a Service, and opens a new flow now and then.
fn datagrams(world: &World, service: &str, port: u16, number: usize) {
    let from = world.from[number % world.from.len()];
    while world.stage.pause(Duration::from_millis(200)) {
        let _ = world.dns.resolve(from, &format!("{service}.shop.maesh")).and_then(|to: IpAddr| {
            let socket = UdpSocket::bind((from, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            for _ in 0..20 {
                socket.send_to(&[7; 200], (to, port))?;
                socket.recv(&mut [0; 256])?;
                world.stage.pause(Duration::from_millis(100));
            }
            Ok(())
        });
    }
}

/// Asks dns for names that exist, names that do not, and names of others; from pods, for pods by a client subnet, and from an
/// address that nobody knows.
fn queries(world: &World) {
    let [near, far, unknown] = world.from;
    let asked = [
        (near, "web.shop.maesh", A, None),
        (near, "web.shop.maesh", AAAA, None),
        (unknown, "cart.shop.maesh", A, Some(near)),
        (unknown, "web.shop.maesh", A, Some(far)),
        (unknown, "cart.shop.traefik.mesh", A, None),
        (unknown, "cart.shop.maesh", A, Some(unknown)),
        (near, "cart.shop.maesh", A, None),
        (far, "db.shop.maesh", A, None),
        (near, "missing.shop.maesh", A, None),
        (unknown, "maesh", SOA, None),
        (near, "www.example.org", A, None),
    ];
    for count in 0_usize.. {
        if !world.stage.pause(Duration::from_millis(60)) {
            return;
        }
        let (from, name, kind, subnet) = asked[count % asked.len()];
        let _ = world.dns.ask(from, &query(name, kind, subnet));
        if count.is_multiple_of(40) {
            // No query: nothing comes back.
            let _ = UdpSocket::bind((from, 0)).and_then(|socket| socket.send_to(b"hello", world.dns.0));
        }
    }
}

/// Keeps a connection to dns for some queries.
fn queries_over_tcp(world: &World) {
    let query = query("web.shop.maesh", A, None);
    while world.stage.pause(Duration::from_secs(1)) {
        let left = std::cell::Cell::new(10);
        let more = || {
            left.set(left.get() - 1);
            left.get() > 0 && world.stage.pause(Duration::from_millis(500))
        };
        let _ = world.dns.ask_over_tcp(world.from[0], &query, more);
    }
}
