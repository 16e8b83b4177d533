//! One DNS question and its answer, for the demo to try its own names.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::net::UdpSocket;

/// Asks `server` for the A records of `name`.
pub async fn a_records(server: SocketAddr, name: &str) -> anyhow::Result<Vec<IpAddr>> {
    let name = Name::from_ascii(format!("{name}.")).with_context(|| format!("{name:?} is no DNS name"))?;
    let id = 0x6d61;
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), RecordType::A));
    let socket = UdpSocket::bind(if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec()?).await?;
    let mut packet = [0; 1232];
    let length = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut packet))
        .await
        .with_context(|| format!("{server} did not answer for {name} within 2 s"))??;
    let answer = Message::from_vec(&packet[..length]).context("the answer cannot be read")?;
    ensure!(answer.metadata.id == id, "the answer belongs to another question");
    if answer.metadata.response_code != ResponseCode::NoError {
        bail!("{name}: {}", answer.metadata.response_code);
    }
    Ok(answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        })
        .collect())
}
