//! Any pod can reach the ports of dns. Whatever it does there, queries of others are answered, over UDP, TCP and TLS, and
//! dns holds a bounded number of files and amount of memory.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use crate::support::{
    PATIENCE, await_condition,
    dns_tls::{self, framed},
    http::get,
    local::{Part, Roles},
    manifest::{save, service},
    resolver::ask,
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};
use socket2::{Domain, Socket, Type};

/// Endpoints of a headless Service whose answer is as long as one may be: 64 KiB.
const ENDPOINTS: usize = 4000;
/// What dns may take beside what it takes idle, whatever peers do: the bound that docs/dns.md states.
const MEMORY: u64 = 160 << 20;
/// Connections over TCP and TLS at most, and what else a process has open.
const FILES: usize = 1024 + 256 + 64;

/// What a peer does with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Says nothing.
    Silent,
    /// Sends the first byte of a length.
    OneByte,
    /// Promises a long message.
    Promise,
    /// Asks a hundred times for a long answer, and reads nothing.
    Deaf,
    /// Asks a hundred times for a long answer, and reads a byte now and then.
    Slow,
    /// Resets the connection within a query.
    Dies,
    /// Sends half of a TLS handshake.
    HalfHandshake,
    /// Says nothing once the handshake is done.
    SilentAfterHandshake,
    /// As [`Self::Deaf`], once the handshake is done.
    DeafAfterHandshake,
}

enum Peer {
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// dns with its peers.
struct Lab {
    roles: Roles,
    tls: SocketAddr,
    client: Arc<ClientConfig>,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        save(&manifests, "web.yaml", &service("shop", "web", 8080, "maesh.containo.us/bypass: \"true\""));
        save(&manifests, "long.yaml", &long());
        let der = certificate(folder.path());
        let mut tls = None;
        let roles = Roles::start_dns(&manifests, |address| {
            let listen = *tls.insert(SocketAddr::new(address, 8853));
            dns_tls::flags(listen, folder.path())
        });
        let mut roots = RootCertStore::empty();
        roots.add(der).unwrap();
        let lab = Self { roles, tls: tls.unwrap(), client: dns_tls::client(roots), _folder: folder };
        await_condition("names are known", || {
            let answer = |name| ask(lab.other(), lab.roles.dns(), name, RecordType::A, PATIENCE).ok();
            let known = answer("web.shop.maesh")?.code == ResponseCode::NoError;
            (known && answer("long.data.maesh")?.code == ResponseCode::NoError).then_some(())
        });
        await_condition("TLS is answered", || connect(Ipv4Addr::LOCALHOST, lab.tls).ok());
        lab
    }

    /// An address that behaves.
    fn other(&self) -> IpAddr {
        Ipv4Addr::new(127, 0, 3, 1).into()
    }

    /// Others are answered over all transports, and probes too.
    fn others_are_answered(&self, when: &str) {
        let answer = ask(self.other(), self.roles.dns(), "web.shop.maesh", RecordType::A, PATIENCE);
        assert_eq!(answer.unwrap().addresses, [Ipv4Addr::new(10, 96, 0, 77)], "{when}, UDP");
        let other = Ipv4Addr::new(127, 0, 3, 1);
        for (transport, at) in [("TCP", self.roles.dns()), ("TLS", self.tls)] {
            let manner = if at == self.tls { Manner::SilentAfterHandshake } else { Manner::Silent };
            let asked = self.peer(other, at, manner).and_then(|mut peer| {
                let mut reply = [0; 50];
                match &mut peer {
                    Peer::Plain(stream) => {
                        stream.write_all(&framed("web.shop.maesh"))?;
                        stream.read_exact(&mut reply)?;
                    }
                    Peer::Encrypted(stream) => {
                        stream.write_all(&framed("web.shop.maesh"))?;
                        stream.read_exact(&mut reply)?;
                    }
                }
                Ok(reply)
            });
            let reply = asked.unwrap_or_else(|error| panic!("{when}, {transport}: {error}"));
            assert!(reply.ends_with(&[10, 96, 0, 77]), "{when}, {transport}: {reply:?}");
        }
        assert_eq!(get(self.roles.admin(Part::Dns), "admin", "/readyz").unwrap().status, 200, "{when}");
    }

    /// A connection that has shown its manner.
    fn peer(&self, from: Ipv4Addr, at: SocketAddr, manner: Manner) -> std::io::Result<Peer> {
        let mut stream = connect(from, at)?;
        let hundred = framed("long.data.maesh").repeat(100);
        match manner {
            Manner::Silent => {}
            Manner::OneByte => stream.write_all(&[0])?,
            Manner::Promise => stream.write_all(&[0x0f, 0xff, 1])?,
            Manner::Deaf => stream.write_all(&hundred)?,
            Manner::Slow => {
                stream.write_all(&hundred)?;
                stream.read_exact(&mut [0])?;
            }
            Manner::Dies => {
                stream.write_all(&hundred[..hundred.len() - 9])?;
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                drop(stream);
                stream = connect(from, at)?;
            }
            Manner::HalfHandshake => stream.write_all(&[22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3])?,
            Manner::SilentAfterHandshake | Manner::DeafAfterHandshake => {
                let name = ServerName::try_from("localhost").unwrap();
                let client = ClientConnection::new(self.client.clone(), name).map_err(std::io::Error::other)?;
                let mut stream = StreamOwned::new(client, stream);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                if manner == Manner::DeafAfterHandshake {
                    stream.write_all(&hundred)?;
                }
                return Ok(Peer::Encrypted(Box::new(stream)));
            }
        }
        Ok(Peer::Plain(stream))
    }

    /// Opens `each` connections from each of `peers` addresses; those that dns takes and ends at once do not count.
    fn crowd(&self, at: SocketAddr, manner: Manner, peers: u8, each: usize) -> Vec<Peer> {
        let addresses = (1..=peers).flat_map(|last| std::iter::repeat_n(Ipv4Addr::new(127, 0, 2, last), each));
        addresses.filter_map(|from| self.peer(from, at, manner).ok()).collect()
    }

    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.roles.id(Part::Dns))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }

    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.roles.id(Part::Dns))).unwrap().count()
    }
}

/// A headless Service with many endpoints, in slices of a thousand.
fn long() -> String {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: long, namespace: data, annotations: \
                    {maesh.containo.us/bypass: \"true\"}}\nspec:\n  clusterIP: None\n  ports: [{name: main, port: 80}]\n"
        .to_owned();
    for number in 0..ENDPOINTS {
        if number % 1000 == 0 {
            text += &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: long-{number}, namespace: \
                 data, labels: {{kubernetes.io/service-name: long}}}}\naddressType: IPv4\nports: [{{name: main, port: \
                 80}}]\nendpoints:\n"
            );
        }
        text += &format!("- addresses: [10.8.{}.{}]\n", number / 250, number % 250 + 1);
    }
    text
}

/// Writes a certificate for `localhost`, and its key.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), signed.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), signed.signing_key.serialize_pem()).unwrap();
    signed.cert.der().clone()
}

#[test]
fn greedy_peers_leave_room_for_others() {
    use Manner::*;
    let lab = Lab::start();
    let (tcp, tls) = (lab.roles.dns(), lab.tls);
    let idle = lab.memory();
    for (manner, at, peers, each) in [
        (Silent, tcp, 5, 450),
        (OneByte, tcp, 6, 210),
        (Promise, tcp, 6, 210),
        (Deaf, tcp, 6, 210),
        (Slow, tcp, 6, 40),
        (Dies, tcp, 2, 100),
        (Silent, tls, 6, 60),
        (HalfHandshake, tls, 6, 60),
        (SilentAfterHandshake, tls, 6, 60),
        (DeafAfterHandshake, tls, 6, 60),
    ] {
        let when = format!("{manner:?} on {at}");
        let held = lab.crowd(at, manner, peers, each);
        assert!(!held.is_empty(), "{when}");
        lab.others_are_answered(&when);
        let (memory, files) = (lab.memory().saturating_sub(idle), lab.files());
        assert!(memory < MEMORY, "{when}: {memory} bytes more");
        assert!(files < FILES, "{when}: {files} files");
        drop(held);
    }
    await_condition("all is given back", || (lab.files() < 64).then_some(()));
}

/// A peer has a fifth of all connections; for each one more, its oldest is closed.
#[test]
fn a_peer_has_its_share() {
    let lab = Lab::start();
    for (at, share) in [(lab.roles.dns(), 204), (lab.tls, 51)] {
        let mut held = lab.crowd(at, Manner::Silent, 1, share + 20);
        let closed = |peer: &mut Peer| {
            let Peer::Plain(stream) = peer else { return true };
            stream.set_nonblocking(true).unwrap();
            !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        };
        await_condition("what is too many is closed", || {
            (held.iter_mut().filter_map(|peer| (!closed(peer)).then_some(())).count() == share).then_some(())
        });
        lab.others_are_answered("with one greedy peer");
    }
}
