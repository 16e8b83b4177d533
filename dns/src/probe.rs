//! Finds out by ourselves which proxies still serve.
//!
//! While the stream is up the controller says which proxies are ready, and nobody probes. While it is down nobody
//! would notice a proxy that dies, so those that are handed out are asked directly; one that answers again comes back.
//! A proxy that the controller last called not ready stays out: we cannot know why it was.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use maesh_config::model::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

/// Probes under way at a time.
const AT_ONCE: usize = 128;
/// What a refusal counts: enough to be left out at once.
const REFUSED: u8 = LIMIT;
/// A proxy is left out from this count on; a probe that times out, perhaps for a lost packet, counts one.
const LIMIT: u8 = 2;

/// How and when proxies are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub how: ProbeKind,
    /// Time between two rounds.
    pub every: Duration,
    /// Time a proxy has to answer. A second lets the system repeat a packet that was lost.
    pub within: Duration,
    /// How long what was found still counts when the stream is up again, for proxies that it says nothing new of:
    /// controllers first wait for proxies to come back.
    pub relief: Duration,
    /// How long fixed addresses still give way then on nodes whose proxy was dead: kube-proxy there may lead to what it was
    /// until it asks an API server that was away again. client-go waits up to a minute for that, and up to a minute more
    /// where the API server was there and not ready yet.
    pub catch_up: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            how: ProbeKind::Connect,
            every: Duration::from_secs(2),
            within: Duration::from_millis(1500),
            relief: Duration::from_secs(10),
            catch_up: Duration::from_secs(150),
        }
    }
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A TCP connection to a port on which the proxy listens.
    Connect,
    /// `GET /readyz` on this port, which also tells of a proxy that is draining.
    Ready {
        /// The admin port of every proxy.
        port: u16,
    },
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeOutcome {
    /// It serves.
    Alive,
    /// It said that it does not, or nothing listens.
    Refused,
    /// It said nothing in time.
    Silent,
}

/// What was found in one round, by the proxies' ids.
pub(crate) type Round = Vec<(Arc<str>, ProbeOutcome)>;

/// Who failed how often.
#[derive(Debug, Default)]
pub(crate) struct Failures(HashMap<Arc<str>, u8>);

impl Failures {
    /// Takes note of a round; returns who is to be left out. Proxies that were not in it are forgotten.
    pub(crate) fn record(&mut self, round: Round) -> HashSet<Arc<str>> {
        let before = std::mem::take(&mut self.0);
        for (id, outcome) in round {
            let failed = before.get(&id).copied().unwrap_or(0);
            match outcome {
                ProbeOutcome::Alive => {}
                ProbeOutcome::Refused => {
                    self.0.insert(id, REFUSED);
                }
                ProbeOutcome::Silent => {
                    self.0.insert(id, failed.saturating_add(1));
                }
            }
        }
        self.0.iter().filter(|(_, failed)| **failed >= LIMIT).map(|(id, _)| id.clone()).collect()
    }
}

/// Where `proxy` is to be asked; `None` if there is nothing to ask.
pub(crate) fn target(proxy: &Proxy, how: ProbeKind) -> Option<SocketAddr> {
    let port = match how {
        ProbeKind::Connect => *proxy.listening.first()?,
        ProbeKind::Ready { port } => port,
    };
    Some(SocketAddr::new(*proxy.addresses.first()?, port))
}

/// Asks all `targets`.
pub(crate) async fn round(targets: Vec<(Arc<str>, SocketAddr)>, probe: Probe) -> Round {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut probes = JoinSet::new();
    for (id, address) in targets {
        let turns = turns.clone();
        probes.spawn(async move {
            let _turn = turns.acquire().await;
            (id, ask(address, probe).await)
        });
    }
    probes.join_all().await
}

async fn ask(address: SocketAddr, probe: Probe) -> ProbeOutcome {
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        match probe.how {
            ProbeKind::Connect => Ok(true),
            ProbeKind::Ready { .. } => says_ready(&mut stream, address).await,
        }
    };
    match timeout(probe.within, answer).await {
        Ok(Ok(true)) => ProbeOutcome::Alive,
        Ok(Ok(false)) => ProbeOutcome::Refused,
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => ProbeOutcome::Silent,
        Ok(Err(_)) => ProbeOutcome::Refused,
        Err(_) => ProbeOutcome::Silent,
    }
}

/// Whether `/readyz` answers 200.
async fn says_ready(stream: &mut TcpStream, address: SocketAddr) -> io::Result<bool> {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    Ok(start.starts_with(b"HTTP/1.") && start.ends_with(b" 200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_left_out() {
        use ProbeOutcome::{Alive, Refused, Silent};
        let mut failures = Failures::default();
        for (case, outcome, out) in [
            ("one timeout may be a lost packet", Silent, false),
            ("two are not", Silent, true),
            ("it answers again", Alive, false),
            ("a refusal is certain", Refused, true),
            ("still gone", Silent, true),
            ("back", Alive, false),
            ("counted anew", Silent, false),
        ] {
            let left_out = failures.record(vec![("p".into(), outcome)]);
            assert_eq!(!left_out.is_empty(), out, "{case}");
        }
    }

    #[tokio::test]
    async fn a_listener_is_alive_and_its_absence_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let found = round(vec![("p".into(), address)], Probe::default()).await;
        assert_eq!(found, [("p".into(), ProbeOutcome::Alive)]);
        drop(listener);
        let found = round(vec![("p".into(), address)], Probe::default()).await;
        assert_eq!(found, [("p".into(), ProbeOutcome::Refused)]);
    }

    #[tokio::test]
    async fn a_draining_proxy_says_so() {
        for (answer, want) in [("200 OK", ProbeOutcome::Alive), ("503 Service Unavailable", ProbeOutcome::Refused)] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("its address");
            let server = async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = [0; 256];
                let length = stream.read(&mut request).await.expect("a request");
                assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
                stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.expect("written");
            };
            let probe = Probe { how: ProbeKind::Ready { port: address.port() }, ..Probe::default() };
            let (found, ()) = tokio::join!(round(vec![("p".into(), address)], probe), server);
            assert_eq!(found, [("p".into(), want)], "{answer}");
        }
    }
}
