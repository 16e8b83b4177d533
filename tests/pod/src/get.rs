//! A client that asks once and prints the answer's body.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// For connecting, and for every read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gets `url` on a connection of its own and prints the body; an error unless the status is 200.
pub(crate) fn print(url: &str) -> Result<(), Box<dyn Error>> {
    writeln!(io::stdout(), "{}", body(url)?.trim_end())?;
    Ok(())
}

/// The body at `url`, on a connection of its own; an error unless the status is 200 and the body whole.
pub(crate) fn body(url: &str) -> Result<String, Box<dyn Error>> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url}: only http:// is known"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let target = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = target.to_socket_addrs()?.next().ok_or_else(|| format!("{target} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // One write: in pieces it would be several packets.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no end of head")?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(format!("{}: {body}", head.lines().next().unwrap_or_default()).into());
    }
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return Err(format!("{} bytes of {length:?} arrived", body.len()).into());
    }
    Ok(body.to_owned())
}
