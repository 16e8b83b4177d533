//! A DNS caller: one question from an address of choice, and what came back.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: ResponseCode,
    /// Addresses in the answer section, as they came.
    pub addresses: Vec<IpAddr>,
    /// Records of any type in the answer section.
    pub records: usize,
    /// Targets and ports of SRV records.
    pub services: Vec<(String, u16)>,
}

/// Asks `server` from the address `from`.
pub fn ask(
    from: IpAddr,
    server: SocketAddr,
    name: &str,
    kind: RecordType,
    patience: Duration,
) -> std::io::Result<Answer> {
    let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).map_err(std::io::Error::other)?;
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    let id = socket.local_addr()?.port();
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, kind));
    socket.send(&question.to_vec().map_err(std::io::Error::other)?)?;
    let mut packet = [0; 4096];
    let length = socket.recv(&mut packet)?;
    let answer = Message::from_vec(&packet[..length]).map_err(std::io::Error::other)?;
    if answer.metadata.id != id {
        return Err(std::io::Error::other("an answer to another question"));
    }
    let data = || answer.answers.iter().map(|record| &record.data);
    Ok(Answer {
        code: answer.metadata.response_code,
        records: answer.answers.len(),
        addresses: data()
            .filter_map(|data| match data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                _ => None,
            })
            .collect(),
        services: data()
            .filter_map(|data| match data {
                RData::SRV(srv) => Some((srv.target.to_ascii(), srv.port)),
                _ => None,
            })
            .collect(),
    })
}

/// As a stub resolver does it: each server in turn, twice, SERVFAIL and silence meaning the next.
pub fn resolve(from: IpAddr, servers: &[SocketAddr], name: &str, kind: RecordType) -> std::io::Result<Answer> {
    let mut last = std::io::Error::other("no server");
    for server in servers.iter().cycle().take(2 * servers.len()) {
        match ask(from, *server, name, kind, Duration::from_secs(1)) {
            Ok(answer) if answer.code != ResponseCode::ServFail => return Ok(answer),
            Ok(_) => last = std::io::Error::other(format!("{server} answered SERVFAIL")),
            Err(error) => last = std::io::Error::new(error.kind(), format!("{server}: {error}")),
        }
    }
    Err(last)
}
