//! Caller and endpoint of `cargo xtask bench ws`: messages that come back, compared byte by byte.
//!
//! One thread each, because each of them has at most one processor. Anything but the message that was sent ends the
//! caller with an error.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// For a handshake or a message.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(name = "maesh-bench-websocket")]
enum Command {
    /// Answer every message with itself, until a signal
    Echo {
        #[arg(required = true)]
        addresses: Vec<SocketAddr>,
    },
    /// Send messages over kept connections, one under way on each, and print how many came back
    Ask {
        address: SocketAddr,
        host: String,
        connections: usize,
        /// Bytes of a message
        length: usize,
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match start(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    LocalSet::new().block_on(&runtime, async {
        match command {
            Command::Echo { addresses } => echo(&addresses).await,
            Command::Ask { address, host, connections, length, seconds } => {
                let time = Duration::from_secs(seconds);
                let messages = ask(address, &host, connections, length, time).await?;
                println!("{messages} messages");
                Ok(())
            }
        }
    })
}

/// Serves all of `addresses`.
async fn echo(addresses: &[SocketAddr]) -> Result<()> {
    let mut listening = JoinSet::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        listening.spawn_local(accept(listener));
    }
    while let Some(ended) = listening.join_next().await {
        ended??;
    }
    Ok(())
}

async fn accept(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A caller that sends something else notices it by itself.
        spawn_local(async {
            if let Ok(socket) = accept_async(stream).await {
                answer(socket).await;
            }
        });
    }
}

/// Sends back every message.
async fn answer(mut socket: WebSocketStream<TcpStream>) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Sends messages of `length` bytes for `time`; returns how many came back.
async fn ask(address: SocketAddr, host: &str, connections: usize, length: usize, time: Duration) -> Result<u64> {
    let message: Rc<[u8]> = (0..length).map(|at| (at % 251) as u8).collect();
    let until = Instant::now() + time;
    let mut running = JoinSet::new();
    for _ in 0..connections {
        running.spawn_local(exchange(address, format!("ws://{host}/"), message.clone(), until));
    }
    let mut messages = 0;
    while let Some(ended) = running.join_next().await {
        messages += ended??;
    }
    Ok(messages)
}

/// One connection: a message after the other until the time is over, at least one.
async fn exchange(address: SocketAddr, url: String, message: Rc<[u8]>, until: Instant) -> Result<u64> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (mut socket, _) =
        timeout(PATIENCE, client_async(url, stream)).await.context("no answer to the handshake")??;
    let mut messages = 0;
    loop {
        socket.send(Message::binary(message.to_vec())).await?;
        let answer = timeout(PATIENCE, socket.next()).await.context("no answer to a message")?;
        let answer = answer.context("closed instead of an answer")??;
        if !answer.is_binary() || *answer.into_data() != *message {
            bail!("another message came back");
        }
        messages += 1;
        if Instant::now() >= until {
            socket.close(None).await?;
            return Ok(messages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn endpoint(serve: impl AsyncFnOnce(WebSocketStream<TcpStream>) + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(accept_async(stream).await.unwrap()).await;
        });
        address
    }

    /// What one message to an endpoint that does `serve` comes to.
    async fn asked(serve: impl AsyncFnOnce(WebSocketStream<TcpStream>) + 'static) -> Result<u64> {
        let address = endpoint(serve).await;
        exchange(address, "ws://web.shop.maesh/".into(), Rc::from([1, 2, 3]), Instant::now()).await
    }

    #[tokio::test]
    async fn messages_come_back() {
        assert_eq!(LocalSet::new().run_until(asked(answer)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn another_message_is_an_error() {
        let other = async |mut socket: WebSocketStream<TcpStream>| {
            socket.next().await.unwrap().unwrap();
            socket.send(Message::binary(vec![1, 2, 4])).await.unwrap();
        };
        let error = LocalSet::new().run_until(asked(other)).await.unwrap_err();
        assert!(error.to_string().contains("another message"), "{error}");
    }
}
