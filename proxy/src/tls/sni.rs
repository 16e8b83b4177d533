//! The server name in the first bytes of a TLS stream.
//!
//! Reads one ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2), which may be spread over several records,
//! and finds the `server_name` extension (RFC 6066 section 3) in it. It is pure and bounded, and it is strict where
//! another reader could understand something else: a hello that names two servers, or has an extension twice, names
//! none. Whether the rest of the hello makes sense is for the server to judge.

use std::borrow::Cow;

/// A hello that takes more bytes than this is not read to its end.
pub const LONGEST: usize = 32 * 1024;

/// Record type of the handshake.
const HANDSHAKE: u8 = 22;
/// Handshake type of the hello.
const CLIENT_HELLO: u8 = 1;
/// Longest payload of a record that is not encrypted.
const RECORD: usize = 1 << 14;
/// Number of the extension `server_name`.
const SERVER_NAME: u16 = 0;
/// Name type `host_name`.
const HOST_NAME: u8 = 0;

/// What the first bytes of a stream are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The beginning of a hello, or nothing yet.
    Incomplete,
    /// No TLS.
    NotTls,
    /// TLS without a name, or with none that can be relied on.
    Unnamed,
    /// TLS for this name: lower case, no trailing dot.
    Named(Box<str>),
}

/// Reads the server name from the first `bytes` of a stream.
pub fn read(bytes: &[u8]) -> Hello {
    match handshake(bytes) {
        Ok(hello) => server_name(&hello).map_or(Hello::Unnamed, Hello::Named),
        Err(Hello::Incomplete) if bytes.len() >= LONGEST => Hello::Unnamed,
        Err(other) => other,
    }
}

/// The body of the ClientHello, put together from its records.
fn handshake(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Hello> {
    let mut rest = HelloReader(bytes);
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let record = record(&mut rest, message.is_empty())?;
        if message.is_empty() {
            message = Cow::Borrowed(record);
        } else {
            message.to_mut().extend_from_slice(record);
        }
        let mut reader = HelloReader(&message);
        // A stream that begins with another handshake message is not one that a client opens.
        if reader.byte().is_some_and(|kind| kind != CLIENT_HELLO) {
            return Err(Hello::NotTls);
        }
        let Some(length) = reader.number(3) else { continue };
        if length > LONGEST {
            return Err(Hello::Unnamed);
        }
        if message.len() >= 4 + length {
            return Ok(match message {
                Cow::Borrowed(message) => Cow::Borrowed(&message[4..4 + length]),
                Cow::Owned(message) => Cow::Owned(message[4..4 + length].to_vec()),
            });
        }
    }
}

/// The payload of the next record.
fn record<'a>(bytes: &mut HelloReader<'a>, first: bool) -> Result<&'a [u8], Hello> {
    let foreign = if first { Hello::NotTls } else { Hello::Unnamed };
    let checked = |value: Option<u8>, right: fn(u8) -> bool| match value {
        Some(value) if right(value) => Ok(()),
        Some(_) => Err(foreign.clone()),
        None => Err(Hello::Incomplete),
    };
    checked(bytes.byte(), |kind| kind == HANDSHAKE)?;
    // 3.x, whatever x: the version that counts is inside.
    checked(bytes.byte(), |major| major == 3)?;
    checked(bytes.byte(), |_| true)?;
    let length = bytes.number(2).ok_or(Hello::Incomplete)?;
    if length == 0 || length > RECORD {
        return Err(foreign);
    }
    bytes.take(length).ok_or(Hello::Incomplete)
}

/// The name in the body of a ClientHello.
fn server_name(hello: &[u8]) -> Option<Box<str>> {
    let mut hello = HelloReader(hello);
    hello.take(2 + 32)?;
    let _session = hello.vector(1)?;
    let _ciphers = hello.vector(2)?;
    let _compression = hello.vector(1)?;
    let mut extensions = HelloReader(hello.vector(2)?);
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let body = extensions.vector(2)?;
        if kind == usize::from(SERVER_NAME) && found.replace(body).is_some() {
            return None;
        }
    }
    let mut body = HelloReader(found?);
    let mut names = HelloReader(body.vector(2)?);
    if !body.0.is_empty() {
        return None;
    }
    let mut host = None;
    while !names.0.is_empty() {
        let kind = names.byte()?;
        let name = names.vector(2)?;
        if kind == HOST_NAME && host.replace(name).is_some() {
            return None;
        }
    }
    host_name(host?)
}

/// A name as it is compared: lower case, no trailing dot. Addresses and what DNS could not hold are no names.
fn host_name(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    if name.len() > 253 || !name.split('.').all(fits) || name.parse::<std::net::Ipv4Addr>().is_ok() {
        return None;
    }
    Some(name.to_ascii_lowercase().into())
}

/// Reads from the front; `None` where there is too little.
struct HelloReader<'a>(&'a [u8]);

impl<'a> HelloReader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    /// A number of so many bytes, the highest first.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes that are preceded by their count, itself of `size` bytes.
    fn vector(&mut self, size: usize) -> Option<&'a [u8]> {
        let length = self.number(size)?;
        self.take(length)
    }
}

#[cfg(test)]
pub(crate) mod tests;
