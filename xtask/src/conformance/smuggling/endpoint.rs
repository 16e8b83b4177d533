//! An endpoint of this suite, which reads strictly.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

/// What came, one line each: `METHOD TARGET X-FORWARDED-FOR`, or what is no request, strictly read.
type Lines = Arc<Mutex<Vec<String>>>;

/// Starts one, which writes down what comes. Its threads end with this process.
pub(super) fn start(lines: Lines) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("an endpoint")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            let lines = Arc::clone(&lines);
            // An error is the end of the connection.
            std::thread::spawn(move || serve(stream, &lines));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream, lines: &Lines) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while !reader.fill_buf()?.is_empty() {
        let request = read(&mut reader);
        let is_malformed = matches!(&request, Err(error) if error.kind() == ErrorKind::InvalidData);
        let (line, seen) = match request {
            Ok(Request { first, forwarded_for }) => {
                let seen = first.trim_end_matches(" HTTP/1.1").to_owned();
                (format!("{seen} {forwarded_for}"), seen)
            }
            Err(error) if is_malformed => (format!("malformed: {error}"), String::new()),
            // Cut off: the proxy has found in its middle that it is malformed.
            Err(error) => return Err(error),
        };
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        if is_malformed {
            return Ok(());
        }
        let body = if seen.starts_with("HEAD ") { String::new() } else { format!("seen: {seen}\n") };
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    }
    Ok(())
}

/// A whole request.
struct Request {
    /// Its first line.
    first: String,
    forwarded_for: String,
}

/// Reads one request. The kind of an error is `InvalidData` where it is not what it should be.
fn read(reader: &mut impl BufRead) -> Result<Request> {
    let first = line(reader)?;
    let parts: Vec<&str> = first.split(' ').collect();
    if !matches!(parts[..], [_, target, "HTTP/1.1"] if target.starts_with('/') || target == "*") {
        return malformed(&first);
    }
    let (mut length, mut is_chunked, mut forwarded_for) = (None, false, String::new());
    loop {
        let field = line(reader)?;
        if field.is_empty() {
            break;
        }
        let Some((name, value)) = field.split_once(':') else { return malformed(&field) };
        match (name, value.trim()) {
            ("content-length", value) if length.is_none() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                length = value.parse().ok();
            }
            ("transfer-encoding", "chunked") if !is_chunked => is_chunked = true,
            ("content-length" | "transfer-encoding", _) => return malformed(&field),
            ("x-forwarded-for", value) => forwarded_for.push_str(value),
            _ if name.is_empty() || name.contains([' ', '\t']) => return malformed(&field),
            _ => {}
        }
    }
    match (length, is_chunked) {
        (Some(_), true) => return malformed("a request with two lengths"),
        (Some(length), false) => skip(reader, length)?,
        (None, true) => chunks(reader)?,
        (None, false) => {}
    }
    Ok(Request { first, forwarded_for })
}

fn chunks(reader: &mut impl BufRead) -> Result<()> {
    loop {
        let size = line(reader)?;
        let Ok(bytes) = u64::from_str_radix(&size, 16) else { return malformed(&size) };
        if bytes == 0 {
            break;
        }
        skip(reader, bytes)?;
        let end = line(reader)?;
        if !end.is_empty() {
            return malformed(&end);
        }
    }
    // Trailers.
    while !line(reader)?.is_empty() {}
    Ok(())
}

/// The next line: it ends with CR LF, and has no other control character.
fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes)?;
    let Some(text) = bytes.strip_suffix(b"\r\n") else {
        let is_cut_off = !bytes.ends_with(b"\n");
        let text = String::from_utf8_lossy(&bytes);
        return if is_cut_off { Err(ErrorKind::UnexpectedEof.into()) } else { malformed(&text) };
    };
    let text = String::from_utf8_lossy(text).into_owned();
    match text.contains(|c: char| c.is_control() && c != '\t') {
        true => malformed(&text),
        false => Ok(text),
    }
}

fn skip(reader: &mut impl Read, bytes: u64) -> Result<()> {
    match std::io::copy(&mut reader.take(bytes), &mut std::io::sink())? {
        read if read == bytes => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn malformed<T>(text: &str) -> Result<T> {
    Err(std::io::Error::new(ErrorKind::InvalidData, format!("{text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        for (bytes, want) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Some("GET / HTTP/1.1")),
            ("POST /a HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi", Some("POST /a HTTP/1.1")),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\na: b\r\n\r\n",
                Some("POST / HTTP/1.1"),
            ),
            ("GET  / HTTP/1.1\r\n\r\n", None),
            ("GET / HTTP/1.1\nhost: a\n\n", None),
            ("GET / HTTP/1.1\r\na: b\rc\r\n\r\n", None),
            ("POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi", None),
            ("POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", None),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n", None),
            ("POST / HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", None),
        ] {
            let got = read(&mut bytes.as_bytes()).map(|request| request.first);
            assert_eq!(got.as_deref().ok(), want, "{bytes:?}: {got:?}");
        }
    }
}
