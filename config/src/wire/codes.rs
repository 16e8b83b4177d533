//! What the messages have in common: addresses as bytes, enumerations as numbers, names as text.
//!
//! Number 0 of every enumeration means "not said", so that it is never mistaken for a value.

use std::net::{IpAddr, SocketAddr};

pub(super) use crate::decode::{impossible, port, service_name};
use crate::{
    decode::DecodeError,
    model::{Protocol, Transport},
};

pub(super) fn ip_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn ip(bytes: &[u8], field: &'static str) -> Result<IpAddr, DecodeError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| impossible(field))
}

pub(super) fn ips(all: Vec<Vec<u8>>, field: &'static str) -> Result<Vec<IpAddr>, DecodeError> {
    all.iter().map(|bytes| ip(bytes, field)).collect()
}

/// Address, then port in network order: 6 or 18 bytes.
pub(super) fn socket_bytes(address: SocketAddr) -> Vec<u8> {
    let mut bytes = ip_bytes(address.ip());
    bytes.extend(address.port().to_be_bytes());
    bytes
}

pub(super) fn socket(bytes: &[u8], field: &'static str) -> Result<SocketAddr, DecodeError> {
    let (address, port) = bytes.split_last_chunk::<2>().ok_or_else(|| impossible(field))?;
    Ok(SocketAddr::new(ip(address, field)?, u16::from_be_bytes(*port)))
}

pub(super) fn protocol_code(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Http => 1,
        Protocol::Tcp => 2,
        Protocol::Udp => 3,
    }
}

pub(super) fn protocol(value: i32) -> Result<Protocol, DecodeError> {
    match value {
        1 => Ok(Protocol::Http),
        2 => Ok(Protocol::Tcp),
        3 => Ok(Protocol::Udp),
        _ => Err(DecodeError::Unknown { field: "protocol", value }),
    }
}

pub(super) fn transport_code(transport: Transport) -> i32 {
    match transport {
        Transport::Tcp => 1,
        Transport::Udp => 2,
    }
}

pub(super) fn transport(value: i32) -> Result<Transport, DecodeError> {
    match value {
        1 => Ok(Transport::Tcp),
        2 => Ok(Transport::Udp),
        _ => Err(DecodeError::Unknown { field: "transport", value }),
    }
}
