//! What can be known of a TLS stream without taking part in it.
//!
//! TLS is never terminated here: on a port that several Services share, the name that the caller says in the clear
//! decides to which of them its stream goes, untouched.

pub mod sni;

use std::{io, time::Duration};

use sni::Hello;
use tokio::{io::Interest, net::TcpStream, time::timeout};

/// How a caller opens a stream, as far as it lets on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// TLS for this server name: lower case, no trailing dot.
    Named(Box<str>),
    /// TLS without a name that could be used.
    Unnamed,
    /// Something else.
    NotTls,
    /// Not enough to tell, in the time allowed or before its end.
    Silent,
}

/// Awaits how `caller` opens its stream, at most for `wait`. Nothing is taken from the stream.
///
/// # Errors
/// The socket's own, a reset above all.
pub async fn peek(caller: &TcpStream, wait: Duration) -> io::Result<Opening> {
    // Most hellos fit; one that does not gets more room for the time of its own reading.
    let mut room = vec![0; 4 * 1024];
    let look = async {
        loop {
            let closed = caller.ready(Interest::READABLE).await?.is_read_closed();
            let mut seen = None;
            let outcome = caller.try_io(Interest::READABLE, || {
                let length = peek_into(caller, &mut room)?;
                match sni::read(&room[..length]) {
                    // What there is has been seen: readable means from now on that there is more.
                    Hello::Incomplete if length < room.len() && !closed => return Err(io::ErrorKind::WouldBlock.into()),
                    hello => seen = Some((length, hello)),
                }
                Ok(())
            });
            match (outcome, seen) {
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {}
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                (Err(error), _) => return Err(error),
                (Ok(()), Some((_, Hello::Named(name)))) => return Ok(Opening::Named(name)),
                (Ok(()), Some((_, Hello::Unnamed))) => return Ok(Opening::Unnamed),
                (Ok(()), Some((_, Hello::NotTls))) => return Ok(Opening::NotTls),
                (Ok(()), Some((length, Hello::Incomplete))) if length == room.len() && length < sni::LONGEST => {
                    room.resize(sni::LONGEST, 0);
                }
                (Ok(()), _) => return Ok(Opening::Silent),
            }
        }
    };
    timeout(wait, look).await.unwrap_or(Ok(Opening::Silent))
}

fn peek_into(socket: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    let peeked = rustix::net::recv(socket, room, rustix::net::RecvFlags::PEEK)?;
    Ok(peeked.0)
}

#[cfg(test)]
mod tests;
