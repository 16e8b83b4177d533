//! Requests of HTTP/1.1 whose caller has ended its side within the body.
//!
//! Where an endpoint does not read an upload, nobody reads from its caller either, and the caller's end is not noticed:
//! it comes after bytes that were not read. So the sweep looks for it, on connections where nothing moves. A caller may
//! end its side once its request is complete, so what was not read must be too little to complete it.

use std::{sync::atomic::Ordering, time::Duration};

use super::caller::Caller;
use crate::socket::PeerEnd;

/// How long no byte has moved on a connection that is looked at. What moves comes to the caller's end by itself.
const QUIET: Duration = Duration::from_secs(1);

/// Bytes that were not read and are looked at to find the end of a body of chunks. Of more it is not known.
const LOOKED_AT: u64 = 1 << 20;

/// What follows the last chunk and its trailers.
const END: &[u8] = b"\r\n\r\n";

impl Caller {
    /// The request that is being answered lacks a part of its body, which its caller can no longer send.
    pub(super) fn is_cut_off(&self) -> bool {
        if !self.is_uploading() || self.activity.quiet() < QUIET {
            return false;
        }
        let Some(end) = self.peer_end.get().filter(|end| end.is_seen()) else { return false };
        // Nothing more can come: one look at each request is enough.
        let request = self.begun();
        if self.looked_at.swap(request, Ordering::Relaxed) == request {
            return false;
        }
        lacks(end, self.body_left())
    }
}

/// Whether what was not read is too little to complete a body; `left`: how many bytes that takes, where it is known.
fn lacks(end: &PeerEnd, left: Option<u64>) -> bool {
    let Ok(unread) = end.unread() else { return false };
    match (left, usize::try_from(unread)) {
        (Some(left), _) => unread < left,
        (None, Ok(length)) if unread <= LOOKED_AT => end.peek(length).is_ok_and(|bytes| !may_end(&bytes)),
        (None, _) => false,
    }
}

/// Whether these bytes may be the last ones of a body of chunks, of which the others were read.
fn may_end(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(END.len())..];
    !tail.is_empty() && END.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::socket::Socket;

    /// A socket whose peer has sent `bytes` and ended its side.
    async fn ended(bytes: &[u8]) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let socket = Socket::new(listener.accept().await.expect("accepted").0);
        assert!(!socket.peer_end().is_seen(), "before the end");
        peer.write_all(bytes).await.expect("written");
        peer.shutdown().await.expect("shut");
        let end = socket.peer_end();
        let seen = async {
            while !end.is_seen() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the end is seen");
        (socket, peer)
    }

    #[tokio::test]
    async fn what_lacks_a_part() {
        for (case, unread, left, lacks_a_part) in [
            ("nothing is left", &b""[..], Some(1), true),
            ("too little", b"hell", Some(5), true),
            ("enough", b"hello", Some(5), false),
            ("enough, and another request", b"helloGET / HTTP/1.1\r\n\r\n", Some(5), false),
            ("no chunk", b"", None, true),
            ("a part of a chunk", b"5\r\nhel", None, true),
            ("a whole chunk", b"5\r\nhello\r\n", None, true),
            ("all chunks", b"5\r\nhello\r\n0\r\n\r\n", None, false),
            ("all chunks and trailers", b"0\r\nx: y\r\n\r\n", None, false),
            ("the very end", b"\n", None, false),
        ] {
            let (socket, _peer) = ended(unread).await;
            assert_eq!(lacks(&socket.peer_end(), left), lacks_a_part, "{case}");
        }
    }

    #[tokio::test]
    async fn a_view_does_not_keep_a_socket_open() {
        let (socket, _peer) = ended(b"hello").await;
        let end = socket.peer_end();
        drop(socket);
        assert!(!end.is_seen() && end.unread().is_err() && end.peek(1).is_err());
    }
}
