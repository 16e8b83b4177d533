//! A server that tells who it is and what it sees. Who it is comes from the environment: POD, NAMESPACE, NODE.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::{env, thread};

use serde_json::{Value, json};

/// Longest head that is read, so that a caller that never ends it costs nothing.
const HEAD: u64 = 64 * 1024;

/// Serves until the process ends.
pub(crate) fn serve() -> Result<(), Box<dyn Error>> {
    let http = TcpListener::bind(("::", 8080)).or_else(|_| TcpListener::bind(("0.0.0.0", 8080)))?;
    let tcp = TcpListener::bind(("::", 9000)).or_else(|_| TcpListener::bind(("0.0.0.0", 9000)))?;
    let udp = UdpSocket::bind(("::", 9001)).or_else(|_| UdpSocket::bind(("0.0.0.0", 9001)))?;
    thread::spawn(move || each(&tcp, echo));
    thread::spawn(move || datagrams(&udp));
    each(&http, requests);
    Ok(())
}

/// Runs `work` on every connection, each on a thread of its own. A connection that fails is its caller's matter.
fn each(listener: &TcpListener, work: fn(TcpStream) -> io::Result<()>) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || work(stream));
    }
}

/// What this pod says of itself, and the caller's address.
fn seen(source: &str) -> Value {
    let named = |name: &str| env::var(name).unwrap_or_default();
    json!({ "pod": named("POD"), "namespace": named("NAMESPACE"), "node": named("NODE"), "source": source })
}

/// One line of what is seen, then every byte back.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    let source = stream.peer_addr()?.ip().to_canonical().to_string();
    writeln!(stream, "{}", seen(&source))?;
    io::copy(&mut stream.try_clone()?, &mut stream)?;
    Ok(())
}

/// Every datagram comes back behind a line of what is seen.
fn datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let mut answer = format!("{}\n", seen(&from.ip().to_canonical().to_string())).into_bytes();
        answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        // Lost like any datagram.
        let _ = socket.send_to(&answer, from);
    }
}

/// HTTP/1.1, one request after the other.
fn requests(mut stream: TcpStream) -> io::Result<()> {
    let source = stream.peer_addr()?.ip().to_canonical().to_string();
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some((line, headers)) = head(&mut reader)? {
        let header = |name: &str| headers.get(name).map_or("", String::as_str);
        let length = header("content-length").parse().unwrap_or(0);
        io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
        let last = header("connection").eq_ignore_ascii_case("close");
        let mut words = line.split(' ');
        let mut answer = seen(&source);
        answer["method"] = json!(words.next());
        answer["path"] = json!(words.next());
        answer["headers"] = json!(headers);
        let body = format!("{answer}\n");
        let connection = if last { "close" } else { "keep-alive" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes())?;
        if last {
            break;
        }
    }
    Ok(())
}

/// The request line and the headers by lower-case name; `None` at the end of the connection.
fn head(reader: &mut impl BufRead) -> io::Result<Option<(String, BTreeMap<String, String>)>> {
    let mut limited = reader.take(HEAD);
    let mut line = String::new();
    if limited.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut field = String::new();
        if limited.read_line(&mut field)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = field.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some((line.trim_end().to_owned(), headers)))
}
