//! One DNS question over UDP or TCP.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What carries a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsTransport {
    Udp,
    Tcp,
}

impl DnsTransport {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// Asks `server`.
///
/// # Errors
/// When nothing comes back that can be read, in time.
pub async fn ask(server: SocketAddr, over: DnsTransport, name: &str, kind: RecordType) -> anyhow::Result<Message> {
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.')))?;
    question.add_query(Query::query(name, kind));
    let bytes = question.to_vec()?;
    let exchange = async {
        match over {
            DnsTransport::Udp => over_udp(server, &bytes).await,
            DnsTransport::Tcp => over_tcp(server, &bytes).await,
        }
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await;
    let answer = answer.with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))??;
    let answer = Message::from_vec(&answer).context("the answer cannot be read")?;
    ensure!(answer.metadata.id == id, "the answer belongs to another question");
    Ok(answer)
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> anyhow::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut packet = vec![0; 4096];
    let length = socket.recv(&mut packet).await?;
    packet.truncate(length);
    Ok(packet)
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&u16::try_from(question.len())?.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let mut packet = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}
