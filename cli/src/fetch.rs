//! One HTTP request over a connection of its own: a caller's in the demo, or one to an admin endpoint.

use std::{net::SocketAddr, pin::pin, time::Duration};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Longest wait for a whole answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest body of an answer. The metrics of a large mesh are some megabytes.
const BODY_LIMIT: usize = 64 << 20;

/// Sends `GET path` as [`get`] does; the host is the address itself.
pub async fn get_from(at: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    get(at, &at.to_string(), path).await
}

/// Sends `GET path` with this `Host` over a connection of its own; status and body.
pub async fn get(at: SocketAddr, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    tokio::time::timeout(PATIENCE, exchange(at, host, path))
        .await
        .with_context(|| format!("{} did not answer within {} s", asked(at, host, path), PATIENCE.as_secs()))?
        .with_context(|| asked(at, host, path))
}

/// What was asked, for people: without what a question has behind its path, which is long and says nothing to them.
fn asked(at: SocketAddr, host: &str, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let address = at.to_string();
    if host == address { format!("http://{address}{path}") } else { format!("http://{host}{path} at {address}") }
}

async fn exchange(at: SocketAddr, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    over(TcpStream::connect(at).await?, host, path).await
}

/// Sends `GET path` with this `Host` over a connection that was made; status and body. Nobody waits for less than a whole
/// answer: how long it may take is the caller's to say. Once this ends, or is dropped, the connection is closed.
///
/// # Errors
/// When the connection ends early, or what comes is no HTTP or too much.
pub async fn over<S>(stream: S, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    bounded(stream, host, path, BODY_LIMIT).await
}

async fn bounded<S>(stream: S, host: &str, path: &str, limit: usize) -> anyhow::Result<(StatusCode, String)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => anyhow!("the answer has more than {limit} bytes"),
            false => anyhow!(error),
        })?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let mut answer = pin!(answer);
    tokio::select! {
        answered = &mut answer => return answered,
        _ = connection => {}
    }
    // The connection has ended, and is gone: what had arrived is read, and nothing more is waited for.
    answer.await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

    /// The head of the request, as the other side reads it.
    async fn read_head(peer: &mut DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(peer.read_u8().await.expect("a whole head"));
        }
        String::from_utf8(head).expect("text")
    }

    /// What comes of an exchange whose other side writes this after the request, a byte at a time, and closes.
    async fn answered(text: &str, limit: usize) -> anyhow::Result<(StatusCode, String)> {
        // One byte fits, so each has to be waited for.
        let (ours, mut peer) = duplex(1);
        // It owns its side: at its end that is closed.
        let other = async move {
            let head = read_head(&mut peer).await;
            assert_eq!(head, "GET /api/status?a=b HTTP/1.1\r\nhost: localhost\r\n\r\n");
            for byte in text.bytes() {
                // Who has read enough has closed.
                if peer.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(bounded(ours, "localhost", "/api/status?a=b", limit), other).0
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end_however_slowly_it_comes() {
        for (text, want) in [
            (format!("{HEAD}hello"), (200, "hello")),
            (format!("{HEAD}hello and more"), (200, "hello")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n".into(),
                (200, "hello"),
            ),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello".into(), (200, "hello")),
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n".into(), (403, "no\n")),
            ("HTTP/1.1 204 No Content\r\n\r\n".into(), (204, "")),
        ] {
            let (status, body) = answered(&text, 5).await.unwrap_or_else(|error| panic!("{text:?}: {error:#}"));
            assert_eq!((status.as_u16(), body.as_str()), want, "{text:?}");
        }
    }

    #[tokio::test]
    async fn half_an_answer_is_none() {
        for text in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            HEAD,
            &format!("{HEAD}hell"),
            "hello\r\n\r\n",
        ] {
            let answer = answered(text, 5).await;
            assert!(answer.is_err(), "{text:?}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_given_up() {
        let chunks = "3\r\nabc\r\n".repeat(1000);
        for text in [
            format!("{HEAD}hello"),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            format!("HTTP/1.1 200 OK\r\n\r\n{chunks}"),
        ] {
            let error = answered(&text, 4).await.expect_err(&text);
            assert!(error.to_string().contains("more than 4 bytes"), "{text:.60}: {error:#}");
        }
    }

    #[tokio::test]
    async fn who_gives_up_waiting_closes_the_connection() {
        let (ours, mut peer) = duplex(1024);
        let (asking, mut asked) = (over(ours, "localhost", "/"), Vec::new());
        tokio::select! {
            answer = asking => panic!("nothing was answered: {answer:?}"),
            head = read_head(&mut peer) => assert!(head.starts_with("GET / "), "{head}"),
        }
        peer.read_to_end(&mut asked).await.expect("the end");
        assert!(asked.is_empty(), "{asked:?}");
    }
}
