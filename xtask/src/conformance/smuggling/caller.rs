//! Sends bytes as they are, with a usual request behind them, and says how they are answered.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};

use super::corpus::Fields;
use super::{PATIENCE, Sent, corpus, get};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How a request was answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status, or how its stream ended without one.
    pub(super) status: String,
    /// The request that the response says it is to.
    pub(super) seen: Option<String>,
    /// The proxy made it. Known over HTTP/1.1 only.
    is_of_the_mesh: Option<bool>,
}

impl Answer {
    /// Whether the endpoint was given the request, and did not take it.
    pub(super) fn is_refusal_of_the_endpoint(&self) -> bool {
        self.is_of_the_mesh == Some(false) && !matches!(self.status.as_str(), "100" | "200")
    }
}

/// What came on the connection of a case.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) answers: Vec<Answer>,
    /// The response to the request that followed on the connection.
    pub(super) follower: Option<Answer>,
}

impl Heard {
    /// For the table.
    pub(super) fn cell(&self) -> String {
        let all: Vec<&str> = self.answers.iter().map(|answer| answer.status.as_str()).collect();
        let all = if all.is_empty() { "the end of the connection".to_owned() } else { all.join(", ") };
        format!("{all}; {}", self.follower.as_ref().map_or("-", |follower| &follower.status))
    }
}

/// Sends it on a connection of its own, and `GET marker` behind it.
pub(super) fn ask(to: SocketAddr, sent: &Sent, marker: &str) -> Result<Heard> {
    match (sent, get(marker)) {
        (Sent::Http1(bytes), Sent::Http1(behind)) => {
            let mut heard = Heard { answers: exchange(to, &[bytes, &behind[..]].concat())?, follower: None };
            let own = |answer: &Answer| answer.seen.as_deref().is_some_and(|seen| seen == format!("GET {marker}"));
            if heard.answers.last().is_some_and(own) {
                heard.follower = heard.answers.pop();
            }
            Ok(heard)
        }
        _ => {
            let [answer, follower] = streams(to, [Some(sent), Some(&corpus::stream_of(marker))])?;
            Ok(Heard {
                answers: answer.into_iter().collect(),
                follower: follower.filter(|answer| answer.seen.is_some()),
            })
        }
    }
}

/// Sends one request on a connection of its own; returns `STATUS METHOD TARGET`, as the response says it, of all responses.
pub(super) fn ask_one(to: SocketAddr, sent: &Sent) -> Result<String> {
    let answers = match sent {
        Sent::Http1(bytes) => exchange(to, bytes)?,
        Sent::Http2 { .. } => streams(to, [Some(sent), None])?.into_iter().flatten().collect(),
    };
    let all: Vec<String> =
        answers.iter().map(|answer| format!("{} {}", answer.status, answer.seen.as_deref().unwrap_or("?"))).collect();
    Ok(all.join(", "))
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| to.to_string())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends these bytes and the end, and returns all responses until the connection ends.
fn exchange(to: SocketAddr, bytes: &[u8]) -> Result<Vec<Answer>> {
    let mut stream = connect(to)?;
    let is_over = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected);
    // Nothing more comes, so whatever is incomplete is not waited for.
    match stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)) {
        Err(error) if !is_over(error.kind()) => return Err(error).context("a request"),
        _ => {}
    }
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if !is_over(error.kind()) => Err(error).context("an answer"),
        _ => Ok(answers(&String::from_utf8_lossy(&all))),
    }
}

/// The responses in what came on a connection, of HTTP/1.1 or 1.0. No body has the begin of a response in it.
fn answers(text: &str) -> Vec<Answer> {
    let of_one = |response: &str| Answer {
        status: response.get(2..5).unwrap_or(response).to_owned(),
        seen: seen(response),
        is_of_the_mesh: Some(response.to_ascii_lowercase().contains("x-maesh-reason:")),
    };
    text.split("HTTP/1.").skip(1).map(of_one).collect()
}

/// The request that a body names.
fn seen(body: &str) -> Option<String> {
    Some(body.split_once("seen: ")?.1.lines().next()?.trim_end().to_owned())
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Literals without indexing (RFC 7541 section 6.2.2).
fn block(fields: &Fields) -> Vec<u8> {
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

fn frames(id: u8, fields: &Fields, body: Option<&[u8]>, trailers: &Fields) -> Vec<u8> {
    let end = |ends: bool| if ends { END_STREAM } else { 0 };
    let is_alone = body.is_none() && trailers.is_empty();
    let mut out = frame(HEADERS, END_HEADERS | end(is_alone), id, &block(fields));
    if let Some(body) = body {
        out.extend(frame(DATA, end(trailers.is_empty()), id, body));
    }
    if !trailers.is_empty() {
        out.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &block(trailers)));
    }
    out
}

/// Sends these on the first streams of a connection, and returns how each ends.
fn streams(to: SocketAddr, sent: [Option<&Sent>; 2]) -> Result<[Option<Answer>; 2]> {
    let mut stream = connect(to)?;
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for (id, sent) in [1, 3].into_iter().zip(sent) {
        if let Some(Sent::Http2 { fields, body, trailers }) = sent {
            bytes.extend(frames(id, fields, body.as_deref(), trailers));
        }
    }
    stream.write_all(&bytes)?;
    let mut answers = [Answer::default(), Answer::default()];
    let mut open = sent.map(|sent| sent.is_some());
    while open.contains(&true) {
        let mut head = [0; 9];
        stream.read_exact(&mut head).context("an answer")?;
        let [a, b, c, kind, flags, _, _, _, id] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        stream.read_exact(&mut payload).context("an answer")?;
        if kind == GOAWAY {
            let code = payload.get(7).copied().unwrap_or_default();
            for (answer, _) in answers.iter_mut().zip(open).filter(|(_, is_open)| *is_open) {
                answer.status = format!("GOAWAY, code {code}");
            }
            break;
        }
        let Some(index) = [1, 3].iter().position(|known| *known == id) else { continue };
        let answer = &mut answers[index];
        match kind {
            HEADERS if answer.status.is_empty() => answer.status = status(&payload)?,
            DATA => answer.seen = answer.seen.take().or_else(|| seen(&String::from_utf8_lossy(&payload))),
            // The answer may have come before the request was read.
            RST_STREAM if answer.status.is_empty() => answer.status = format!("a reset, code {}", payload[3]),
            _ => {}
        }
        if kind == RST_STREAM || (matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0) {
            open[index] = false;
        }
    }
    let mut sent = sent.into_iter();
    Ok(answers.map(|answer| sent.next().flatten().map(|_| answer)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_told_apart() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nseen: GET /a\n\
                    HTTP/1.1 400 Bad Request\r\nx-maesh-reason: bad_request\r\n\r\n";
        let got: Vec<(String, Option<String>, Option<bool>)> =
            answers(text).into_iter().map(|answer| (answer.status, answer.seen, answer.is_of_the_mesh)).collect();
        let want = [("100", None, false), ("200", Some("GET /a"), false), ("400", None, true)];
        assert_eq!(
            got,
            want.map(|(status, seen, mesh)| (status.to_owned(), seen.map(str::to_owned), Some(mesh))).to_vec()
        );
    }
}
