//! WebSocket as a client.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::Failure;

/// An open WebSocket whose server has said who it is.
pub(crate) struct Socket {
    socket: WebSocketStream<TcpStream>,
    /// The server's first message.
    pub(crate) told: String,
}

/// How a WebSocket went on.
pub(crate) enum Next {
    Text(String),
    /// Closed in order, with this code.
    Closed(u16),
}

impl From<tungstenite::Error> for Failure {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Io(error) => error.into(),
            tungstenite::Error::Http(response) => Self::Status(response.status().as_u16(), String::new()),
            error => Self::WebSocket(error.to_string()),
        }
    }
}

impl Socket {
    /// Upgrades the connection and reads the first message.
    pub(crate) async fn open(stream: TcpStream, authority: &str, path: &str) -> Result<Self, Failure> {
        let (socket, _) = client_async(format!("ws://{authority}{path}"), stream).await?;
        let mut opened = Self { socket, told: String::new() };
        match opened.next().await? {
            Next::Text(told) => opened.told = told,
            Next::Closed(_) => return Err(Failure::WebSocket("closed before a message came".to_owned())),
        }
        Ok(opened)
    }

    pub(crate) async fn send(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// The next text, or the close.
    pub(crate) async fn next(&mut self) -> Result<Next, Failure> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Next::Text(text.to_string())),
                Some(Ok(Message::Close(frame))) => {
                    return Ok(Next::Closed(frame.map_or(1005, |frame| frame.code.into())));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Failure::WebSocket("ended without a close".to_owned())),
            }
        }
    }

    /// Closes in order.
    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        self.socket.close(None).await?;
        while let Next::Text(_) = self.next().await? {}
        Ok(())
    }
}
