//! Questions to the mesh's dns: queries written by hand, and the first address of a response.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::callers::connect;

/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Record types.
pub(super) const A: u16 = 1;
pub(super) const SOA: u16 = 6;
pub(super) const AAAA: u16 = 28;

/// Where dns answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dns(pub(super) SocketAddr);

impl Dns {
    /// Asks from the address `from`, over UDP.
    pub(super) fn ask(&self, from: Ipv4Addr, query: &[u8]) -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(query, self.0)?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        Ok(buffer[..length].to_vec())
    }

    /// Asks over TCP, and goes on asking on the same connection as long as `more` says so.
    pub(super) fn ask_over_tcp(&self, from: Ipv4Addr, query: &[u8], more: impl Fn() -> bool) -> io::Result<()> {
        let mut stream = connect(from, self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        loop {
            let length = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
            stream.write_all(&[&length, query].concat())?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            io::copy(&mut (&mut stream).take(u16::from_be_bytes(length).into()), &mut io::sink())?;
            if !more() {
                return Ok(());
            }
        }
    }

    /// The address of `name` for the caller at `from`.
    pub(super) fn resolve(&self, from: Ipv4Addr, name: &str) -> io::Result<IpAddr> {
        let response = self.ask(from, &query(name, A, None))?;
        address(&response).ok_or_else(|| io::Error::other(format!("{name} has no address")))
    }
}

/// A query; with the client subnet `subnet` of full length, if one is given.
pub(super) fn query(name: &str, kind: u16, subnet: Option<Ipv4Addr>) -> Vec<u8> {
    let additional = u8::from(subnet.is_some());
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, additional];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(63));
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend([kind.to_be_bytes(), [0, 1]].concat());
    if let Some(subnet) = subnet {
        // The root's name, OPT, 1232 bytes, no flags; the option 8, of IPv4, all 32 bits.
        query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 8, 0, 8, 0, 1, 32, 0]);
        query.extend(subnet.octets());
    }
    query
}

/// The first IPv4 address of a response to a query without additional records.
fn address(response: &[u8]) -> Option<IpAddr> {
    if response.get(3)? & 15 != 0 || u16::from_be_bytes([*response.get(6)?, *response.get(7)?]) == 0 {
        return None;
    }
    let mut at = 12;
    while *response.get(at)? != 0 {
        at += 1 + usize::from(response[at]);
    }
    // The end of the question, and a record whose name is a pointer.
    let record = at + 5;
    let data = record + 12;
    let is_a = response.get(record..record + 4)? == [0xc0, 12, 0, 1] && response.get(data - 2..data)? == [0, 4];
    let octets: [u8; 4] = response.get(data..data + 4)?.try_into().ok()?;
    is_a.then(|| Ipv4Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_response() {
        let mut response = query("web.shop.maesh", A, None);
        response[7] = 1;
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 1, 2, 3]);
        assert_eq!(address(&response), Some(Ipv4Addr::new(127, 1, 2, 3).into()));
        response[3] = 3;
        assert_eq!(address(&response), None, "NXDOMAIN");
        assert_eq!(address(&response[..20]), None, "cut off");
    }
}
