//! TCP and UDP: what is seen in a first line, then every byte back.

use std::io;
use std::net::SocketAddr;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::seen::seen;

/// One connection, to its end.
pub(super) async fn echo(mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    stream.write_all(format!("{}\n", json!(seen(from))).as_bytes()).await?;
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    // The caller's end of sending is answered by ours.
    write.shutdown().await
}

/// Every datagram comes back behind a line of what is seen.
pub(super) async fn datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // An error belongs to a datagram that was sent before.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let mut answer = format!("{}\n", json!(seen(from))).into_bytes();
        answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let _ = socket.send_to(&answer, from).await;
    }
}
