//! A stub resolver, so that a client can tell NXDOMAIN, SERVFAIL and silence apart, which no C library says.
//!
//! It reads the pod's resolv.conf and does what musl does with it: names with fewer dots than `ndots` are tried with
//! every search domain first, both families are asked at once, and a server that fails ends the search.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Whom to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: usize,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The name that had addresses, with a dot at its end.
    pub(crate) name: String,
    /// IPv4 first, each family as it came.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long they hold.
    pub(crate) ttl: Duration,
    /// Queries that were sent again because nobody answered the first.
    pub(crate) resent: u32,
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("NXDOMAIN")]
    NoName,
    #[error("SERVFAIL")]
    ServerFailed,
    #[error("no address")]
    NoAddress,
    #[error("no answer")]
    Silence,
    #[error("{0}")]
    Other(String),
}

impl LookupError {
    /// Whether it is the server's word that the name is not served, so that another name may be tried.
    pub(crate) fn is_an_answer(&self) -> bool {
        matches!(self, Self::NoName | Self::ServerFailed)
    }
}

impl Resolver {
    /// As the pod's resolv.conf says.
    pub(crate) fn of_the_pod() -> std::io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/etc/resolv.conf")?))
    }

    /// Asks one server for names as they are.
    pub(crate) fn of_server(server: IpAddr) -> Self {
        Self { servers: vec![SocketAddr::new(server, 53)], search: Vec::new(), ..Self::parse("") }
    }

    /// Reads a resolv.conf; what it does not say has the C libraries' defaults.
    fn parse(text: &str) -> Self {
        let mut resolver =
            Self { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: Duration::from_secs(5), attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse().ok());
                    resolver.servers.extend(server.map(|server| SocketAddr::new(server, 53)));
                }
                Some("search") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for (name, value) in words.filter_map(|word| word.split_once(':')) {
                        match (name, value.parse()) {
                            ("ndots", Ok(value)) => resolver.ndots = value,
                            ("timeout", Ok(value)) => resolver.timeout = Duration::from_secs(value as u64),
                            ("attempts", Ok(value)) => resolver.attempts = value,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        resolver
    }

    /// The names to ask for, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let whole = format!("{name}.");
        let mut candidates: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{}.", domain.trim_end_matches('.'))).collect();
        if name.matches('.').count() >= self.ndots {
            candidates.insert(0, whole);
        } else {
            candidates.push(whole);
        }
        candidates
    }

    /// The addresses of `name`, which may be an address itself.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Found, LookupError> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Ok(Found { name: name.to_owned(), addresses: vec![address], ttl: Duration::MAX, resent: 0 });
        }
        let mut resent = 0;
        let mut last = LookupError::NoName;
        for candidate in self.candidates(name) {
            let ((four, again), (six, again_six)) =
                tokio::join!(self.ask(&candidate, RecordType::A), self.ask(&candidate, RecordType::AAAA));
            resent += again + again_six;
            match (four, six) {
                (Ok(four), Ok(six)) => {
                    let ttl = four.iter().chain(&six).map(|(_, ttl)| *ttl).min();
                    let addresses = four.iter().chain(&six).map(|(address, _)| *address).collect();
                    match ttl {
                        Some(ttl) => {
                            let ttl = Duration::from_secs(ttl.into());
                            return Ok(Found { name: candidate, addresses, ttl, resent });
                        }
                        None => last = LookupError::NoAddress,
                    }
                }
                // A name that one family has not, no family has.
                (Err(LookupError::NoName), _) | (_, Err(LookupError::NoName)) => {}
                (Err(error), _) | (_, Err(error)) => return Err(error),
            }
        }
        Err(last)
    }

    /// Addresses of one family with their TTLs, and how often the query was sent again. No address when the name has
    /// none of this family.
    async fn ask(&self, name: &str, family: RecordType) -> (Result<Vec<(IpAddr, u32)>, LookupError>, u32) {
        let mut last = LookupError::Silence;
        let servers = (0..self.attempts).flat_map(|_| &self.servers);
        for (resent, server) in (0..).zip(servers) {
            match timeout(self.timeout, exchange(*server, name, family)).await {
                Ok(Ok(answer)) => return (addresses(&answer), resent),
                Ok(Err(error)) => last = LookupError::Other(format!("asking {server}: {error}")),
                Err(_) => last = LookupError::Silence,
            }
        }
        (Err(last), 0)
    }
}

/// The addresses of `name` as the C library finds them; it does not say why there are none.
pub(crate) async fn library(name: &str) -> Result<Found, LookupError> {
    let found = tokio::net::lookup_host((name, 0)).await.map_err(|error| LookupError::Other(error.to_string()))?;
    let addresses = found.map(|address| address.ip()).collect();
    Ok(Found { name: name.to_owned(), addresses, ttl: Duration::ZERO, resent: 0 })
}

/// One question on a socket of its own, so that a closed port is heard of.
async fn exchange(server: SocketAddr, name: &str, family: RecordType) -> std::io::Result<Message> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let id = rand::random();
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).map_err(std::io::Error::other)?, family));
    socket.send(&question.to_vec().map_err(std::io::Error::other)?).await?;
    let mut packet = [0; 4096];
    loop {
        let length = socket.recv(&mut packet).await?;
        let answer = Message::from_vec(packet.get(..length).unwrap_or_default()).map_err(std::io::Error::other)?;
        if answer.metadata.id == id {
            return Ok(answer);
        }
    }
}

/// The addresses in `answer`.
fn addresses(answer: &Message) -> Result<Vec<(IpAddr, u32)>, LookupError> {
    match answer.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Err(LookupError::NoName),
        ResponseCode::ServFail => return Err(LookupError::ServerFailed),
        code => return Err(LookupError::Other(format!("{code}"))),
    }
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    };
    Ok(answer.answers.iter().filter_map(|record| Some((address(&record.data)?, record.ttl))).collect())
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;

    use super::*;

    const POD: &str =
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";

    #[test]
    fn search_domains_come_first_while_a_name_has_few_dots() {
        let of = |text: &str, name: &str| Resolver::parse(text).candidates(name).join(" ");
        for (case, text, name, want) in [
            (
                "a pod's",
                POD,
                "web.shop.maesh",
                "web.shop.maesh.shop.svc.cluster.local. web.shop.maesh.svc.cluster.local. \
                 web.shop.maesh.cluster.local. web.shop.maesh.",
            ),
            ("a dot at the end", POD, "web.shop.maesh.", "web.shop.maesh."),
            ("dots enough", "search a\noptions ndots:1", "web.shop", "web.shop. web.shop.a."),
            ("nothing said", "", "web", "web."),
        ] {
            assert_eq!(of(text, name), want, "{case}");
        }
    }

    #[test]
    fn a_resolv_conf_is_read() {
        let resolver = Resolver::parse(&format!("{POD}options timeout:2 attempts:3 edns0\nnameserver nonsense\n"));
        assert_eq!(resolver.servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!((resolver.ndots, resolver.attempts, resolver.timeout), (5, 3, Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn what_a_server_says_is_told_apart() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 512];
            let mut late = false;
            while let Ok((length, from)) = server.recv_from(&mut packet).await {
                let mut answer = Message::from_vec(&packet[..length]).unwrap();
                answer.metadata.message_type = MessageType::Response;
                let name = answer.queries[0].name().to_ascii();
                answer.metadata.response_code = match name.as_str() {
                    "gone." => ResponseCode::NXDomain,
                    "broken." => ResponseCode::ServFail,
                    "refused." => ResponseCode::Refused,
                    "silent." => continue,
                    "late." if answer.queries[0].query_type() == RecordType::A => {
                        if !std::mem::replace(&mut late, true) {
                            continue;
                        }
                        let address = RData::A(std::net::Ipv4Addr::new(127, 0, 0, 9).into());
                        answer.add_answer(Record::from_rdata(answer.queries[0].name().clone(), 5, address));
                        ResponseCode::NoError
                    }
                    _ => ResponseCode::NoError,
                };
                server.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let resolver = Resolver { servers: vec![address], timeout: Duration::from_millis(50), ..Resolver::parse("") };
        for (name, want, answered) in [
            ("gone", LookupError::NoName, true),
            ("broken", LookupError::ServerFailed, true),
            ("refused", LookupError::Other("Query Refused".to_owned()), false),
            ("silent", LookupError::Silence, false),
            ("empty", LookupError::NoAddress, false),
        ] {
            let error = resolver.lookup(name).await.unwrap_err();
            assert_eq!((&error, error.is_an_answer()), (&want, answered), "{name}");
        }
        let found = resolver.lookup("late").await.unwrap();
        assert_eq!(found.addresses, [IpAddr::from([127, 0, 0, 9])]);
        assert!(found.resent > 0, "{found:?}");
        assert_eq!(resolver.lookup("127.0.0.1").await.unwrap().addresses, [IpAddr::from([127, 0, 0, 1])]);
    }
}
