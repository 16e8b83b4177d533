//! A client that asks once and prints the answer's body.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// For connecting, and for every read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gets `url` on a connection of its own and prints the body; an error unless the status is 200.
pub(crate) fn print(url: &str) -> Result<(), Box<dyn Error>> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url}: only http:// is known"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let target = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = target.to_socket_addrs()?.next().ok_or_else(|| format!("{target} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no end of head")?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(format!("{}: {body}", head.lines().next().unwrap_or_default()).into());
    }
    writeln!(io::stdout(), "{}", body.trim_end())?;
    Ok(())
}
