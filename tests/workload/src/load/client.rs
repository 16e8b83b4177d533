//! One plan being carried out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::cache::Cache;
use super::line::{Begun, Log};
use super::plan::{Kind, Plan, Target};
use super::{clock, long};
use crate::call::http::{Asked, Question, Sender};
use crate::call::stream::Tcp;
use crate::call::{Failure, connect, who};
use crate::seen::Seen;

/// For one request, with everything that belongs to it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Attempts to find a connection that is still open, before a new one is made.
const KEPT: usize = 8;

pub(crate) struct Client {
    pub(crate) plan: Plan,
    cache: Cache,
    pub(crate) log: Log,
    /// Connections that may be used again.
    kept: Mutex<Vec<Sender>>,
}

impl Client {
    pub(crate) fn new(plan: Plan, cache: Cache, log: Log) -> Arc<Self> {
        Arc::new(Self { plan, cache, log, kept: Mutex::default() })
    }

    /// Starts requests by the clock, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        if matches!(self.plan.kind, Kind::WebSocket | Kind::Stream) {
            return long::run(self).await;
        }
        let mut clock = clock(self.plan.rate);
        loop {
            clock.tick().await;
            let client = self.clone();
            tokio::spawn(async move {
                let mut begun = Log::begin(&client.plan.text);
                let outcome = timeout(PATIENCE, client.request(&mut begun)).await.unwrap_or(Err(Failure::Slow));
                client.log.write(begun, outcome);
            });
        }
    }

    async fn request(&self, begun: &mut Begun) -> Result<Seen, Failure> {
        let two = self.plan.kind == Kind::H2cKept;
        if two || self.plan.kind == Kind::Http1Kept {
            for _ in 0..KEPT {
                let Some(mut sender) = self.take().await else { break };
                // What ended before anything was sent is no failure: another connection is used.
                if let Asked::Answered(answer) = self.ask(&mut sender, &self.plan.target).await? {
                    self.keep(sender).await;
                    return who(&answer.body);
                }
            }
        }
        let (target, address) = self.address(begun).await?;
        match self.plan.kind {
            Kind::Tcp => {
                let mut tcp = Tcp::open(connect(address).await?).await?;
                tcp.exchange().await?;
                let seen = who(&tcp.told)?;
                tcp.close().await?;
                Ok(seen)
            }
            Kind::H2c | Kind::H2cKept => self.on_new(Sender::second(connect(address).await?).await?, target).await,
            _ => self.on_new(Sender::first(connect(address).await?).await?, target).await,
        }
    }

    /// Where to connect to: the name's address, or the plain name's where the DNS does not serve the other.
    pub(crate) async fn address(&self, begun: &mut Begun) -> Result<(&Target, SocketAddr), Failure> {
        let (target, found) = match (self.cache.address(&self.plan.target).await, &self.plan.plain) {
            (Err(error), Some(plain)) if error.is_an_answer() => {
                begun.plain = true;
                (plain, self.cache.address(plain).await)
            }
            (found, _) => (&self.plan.target, found),
        };
        let (address, resent) = found?;
        begun.resent += resent;
        begun.address = Some(address.ip());
        Ok((target, address))
    }

    async fn on_new(&self, mut sender: Sender, target: &Target) -> Result<Seen, Failure> {
        let answer = self.ask(&mut sender, target).await?.answer()?;
        if matches!(self.plan.kind, Kind::Http1Kept | Kind::H2cKept) {
            self.keep(sender).await;
        }
        who(&answer.body)
    }

    async fn ask(&self, sender: &mut Sender, target: &Target) -> Result<Asked, Failure> {
        let question = Question { authority: target.authority(), path: "/".to_owned(), grpc: None };
        sender.ask(&question).await
    }

    /// A connection that looks open.
    async fn take(&self) -> Option<Sender> {
        let mut kept = self.kept.lock().await;
        kept.retain(Sender::is_open);
        kept.pop()
    }

    async fn keep(&self, sender: Sender) {
        if sender.is_open() {
            self.kept.lock().await.push(sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::run;
    use crate::serve;

    /// Good and bad ones, each logged, with a reason where it failed; and what is kept is used again.
    #[tokio::test]
    async fn every_request_is_logged_with_its_outcome() {
        let server = serve::start(&serve::Ports { http: 0, tls: 0, tcp: 0, udp: 0 }, &serve::Behaviour::default())
            .await
            .unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("maesh-load-{}", std::process::id()));
        let (http, tcp) = (server.ports.http, server.ports.tcp);
        let plans = [
            format!("http1 20 127.0.0.1:{http}"),
            format!("http1-kept 20 127.0.0.1:{http}"),
            format!("h2c 20 127.0.0.1:{http}"),
            format!("h2c-kept 20 127.0.0.1:{http}"),
            format!("tcp 20 127.0.0.1:{tcp}"),
            format!("websocket 2 127.0.0.1:{http}"),
            format!("stream 2 127.0.0.1:{tcp}"),
            format!("tcp 20 127.0.0.1:{closed}"),
        ];
        let enough = async {
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            Ok(())
        };
        run(&folder, plans.iter().map(|plan| plan.parse().unwrap()).collect(), enough).await.unwrap();
        let log = fs::read_to_string(&folder).unwrap();
        fs::remove_file(&folder).unwrap();
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for plan in &plans {
            let of: Vec<_> = lines.iter().filter(|line| line["plan"] == **plan).collect();
            let failed = of.iter().filter(|line| !line["failure"].is_null()).count();
            if plan.ends_with(&closed.to_string()) {
                assert!(failed == of.len() && failed > 10, "{plan}: {log}");
                assert!(of.iter().all(|line| line["failure"] == "connect: connection refused"), "{plan}: {log}");
            } else {
                assert_eq!(failed, 0, "{plan}: {log}");
                let want = if of[0]["long"] == true { 2 } else { 15 };
                assert!(of.len() >= want, "{plan}: {} of {want}: {log}", of.len());
                assert!(of.iter().all(|line| line["source"] == "127.0.0.1"), "{plan}: {log}");
            }
        }
        let open = lines.iter().filter(|line| line["ended"] == "still open" && line["exchanges"].as_u64() > Some(1));
        assert_eq!(open.count(), 4, "{log}");
        server.stop().await;
    }
}
