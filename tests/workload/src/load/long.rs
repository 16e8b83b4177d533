//! Connections that are held open, with an exchange a second on each; counted apart from requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep_until, timeout};

use super::client::Client;
use super::line::{Begun, Log};
use super::plan::Kind;
use crate::call::stream::Tcp;
use crate::call::websocket::{Next, Socket};
use crate::call::{Failure, connect, who};
use crate::seen::Seen;

/// Between two exchanges.
const PERIOD: Duration = Duration::from_secs(1);

/// For one exchange.
const PATIENCE: Duration = Duration::from_secs(10);

/// Holds as many connections as the plan says, for ever.
pub(crate) async fn run(client: Arc<Client>) {
    for _ in 0..client.plan.rate {
        let client = client.clone();
        // Apart from the plans: it writes its last line when the log ends.
        tokio::spawn(async move { while again(&client).await {} });
    }
    std::future::pending::<()>().await;
}

/// One connection to its end; whether another is to follow.
async fn again(client: &Client) -> bool {
    let next = Instant::now() + PERIOD;
    let mut begun = Log::begin(&client.plan.text);
    begun.long = true;
    let mut seen = Seen::default();
    let outcome = tokio::select! {
        outcome = hold(client, &mut begun, &mut seen) => Some(outcome),
        () = client.log.ended() => None,
    };
    let go_on = outcome.is_some();
    let outcome = outcome.unwrap_or_else(|| Ok("still open".to_owned()));
    match outcome {
        Ok(ended) => {
            begun.ended = Some(ended);
            client.log.write(begun, Ok(seen));
        }
        Err(failure) => client.log.write(begun, Err(failure)),
    }
    if go_on {
        // A server that refuses is not asked without end.
        sleep_until(next).await;
    }
    go_on
}

/// Exchanges until the server ends it in order; says how.
async fn hold(client: &Client, begun: &mut Begun, seen: &mut Seen) -> Result<String, Failure> {
    let (target, address) = client.address(begun).await?;
    let stream = connect(address).await?;
    let mut clock = interval(PERIOD);
    if client.plan.kind == Kind::WebSocket {
        let mut socket = Socket::open(stream, &target.authority(), "/").await?;
        *seen = who(socket.told.as_bytes())?;
        loop {
            tokio::select! {
                next = socket.next() => match next? {
                    Next::Closed(code) => return Ok(format!("close {code}")),
                    Next::Text(_) => return Err(Failure::Answer("a message came unasked")),
                },
                _ = clock.tick() => {}
            }
            socket.send("still there?").await?;
            match timeout(PATIENCE, socket.next()).await.map_err(|_| Failure::Slow)?? {
                Next::Closed(code) => return Ok(format!("close {code}")),
                Next::Text(_) => begun.exchanges += 1,
            }
        }
    }
    let mut tcp = Tcp::open(stream).await?;
    *seen = who(&tcp.told)?;
    loop {
        tokio::select! {
            ended = tcp.ended() => return ended.map(|()| "end".to_owned()),
            _ = clock.tick() => {}
        }
        timeout(PATIENCE, tcp.exchange()).await.map_err(|_| Failure::Slow)??;
        begun.exchanges += 1;
    }
}
