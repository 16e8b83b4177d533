//! Connections that are opened and never used: what a hostile pod, or one with a fault, does to whoever it reaches.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// For one connection to be made.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause of one place after a connection of it was refused or ended at once.
const PAUSE: Duration = Duration::from_millis(200);

/// What one place has seen.
#[derive(Default)]
struct Seen {
    /// Connections that were made.
    opened: u64,
    /// Attempts that failed.
    refused: u64,
    /// It had a connection when the time was over.
    open: bool,
}

/// Keeps up to `count` silent connections open to each of `targets` for `time`, and prints how many there were as one
/// line of JSON. One that ends is made again.
pub(crate) async fn run(targets: &[SocketAddr], count: usize, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    let mut places = JoinSet::new();
    for target in targets {
        for _ in 0..count {
            places.spawn(place(*target, until));
        }
    }
    let (mut opened, mut refused, mut open) = (0, 0, 0_u64);
    while let Some(seen) = places.join_next().await {
        let seen = seen?;
        opened += seen.opened;
        refused += seen.refused;
        open += u64::from(seen.open);
    }
    println!("{}", json!({"opened": opened, "refused": refused, "open": open}));
    Ok(())
}

/// One connection after the other, each for as long as the other side lets it be.
async fn place(target: SocketAddr, until: Instant) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < until {
        match timeout(PATIENCE, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => {
                seen.opened += 1;
                if timeout_at(until, ended(&stream)).await.is_err() {
                    seen.open = true;
                    return seen;
                }
            }
            Ok(Err(_)) | Err(_) => seen.refused += 1,
        }
        sleep(PAUSE).await;
    }
    seen
}

/// Until the other side ends the connection, whatever it says before.
async fn ended(stream: &TcpStream) {
    let mut bytes = [0; 1024];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut bytes) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_ends_is_made_again_and_what_stays_is_kept() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            drop(listener.accept().await.unwrap());
            let kept = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
            drop(kept);
        });
        let seen = place(target, Instant::now() + Duration::from_secs(2)).await;
        assert!(seen.open);
        assert_eq!((seen.opened, seen.refused), (2, 0));
        accepting.abort();
    }
}
