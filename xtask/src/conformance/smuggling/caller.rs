//! Sends bytes as they are, and says how they are answered.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};

use super::{PATIENCE, Sent};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Sends it on a connection of its own, and returns how it was answered.
pub(super) fn ask(to: SocketAddr, sent: &Sent) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| to.to_string())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match sent {
        Sent::Http1(bytes) => {
            stream.write_all(bytes)?;
            // Nothing more comes, so whatever is incomplete is not waited for.
            stream.shutdown(Shutdown::Write)?;
            statuses(&mut stream)
        }
        Sent::Http2 { fields, body, trailers } => {
            stream.write_all(&frames(fields, body.as_deref(), trailers))?;
            outcome(&mut stream)
        }
    }
}

/// The statuses of all responses until the connection ends.
fn statuses(stream: &mut TcpStream) -> Result<String> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(error).context("an answer"),
        _ => {}
    }
    let text = String::from_utf8_lossy(&all);
    let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).filter_map(|response| response.get(..3)).collect();
    Ok(if statuses.is_empty() { "the end of the connection".to_owned() } else { statuses.join(", ") })
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Literals without indexing (RFC 7541 section 6.2.2).
fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            // None in the corpus is as long as 127 bytes.
            out.push(u8::try_from(text.len()).unwrap_or(126).min(126));
            out.extend_from_slice(&text[..text.len().min(126)]);
        }
    }
    out
}

fn frames(fields: &[(Vec<u8>, Vec<u8>)], body: Option<&[u8]>, trailers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let end = |ends: bool| if ends { END_STREAM } else { 0 };
    let mut out = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let is_alone = body.is_none() && trailers.is_empty();
    out.extend(frame(HEADERS, END_HEADERS | end(is_alone), 1, &block(fields)));
    if let Some(body) = body {
        out.extend(frame(DATA, end(trailers.is_empty()), 1, body));
    }
    if !trailers.is_empty() {
        out.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    out
}

/// How the stream ends.
fn outcome(stream: &mut TcpStream) -> Result<String> {
    let mut answer = String::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).context("an answer")?;
        let [a, b, c, kind, flags, _, _, _, id] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        stream.read_exact(&mut payload).context("an answer")?;
        match (kind, id) {
            (HEADERS, 1) if answer.is_empty() => answer = status(&payload)?,
            (RST_STREAM, 1) if answer.is_empty() => return Ok(format!("a reset, code {}", payload[3])),
            // The answer came before the request was read.
            (RST_STREAM, 1) => return Ok(answer),
            (GOAWAY, _) => return Ok(format!("GOAWAY, code {}", payload.get(7).copied().unwrap_or_default())),
            _ => {}
        }
        if id == 1 && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return Ok(answer);
        }
    }
}

/// The status at the beginning of a header block: an index of the static table, or a literal.
fn status(block: &[u8]) -> Result<String> {
    let known = ["200", "204", "206", "304", "400", "404", "500"];
    match block {
        [first @ 0x88..=0x8e, ..] => Ok(known[usize::from(first - 0x88)].to_owned()),
        [0x08 | 0x18 | 0x48..=0x4e, 3, value @ ..] if value.len() >= 3 => {
            Ok(String::from_utf8_lossy(&value[..3]).into_owned())
        }
        other => bail!("a head that begins with {:02x?}", other.get(..5)),
    }
}
