//! One question, printed: for tests that look at a single answer.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::call::http::{Question, Sender};
use crate::call::stream::Tcp;
use crate::call::websocket::{Next, Socket};
use crate::call::{connect, stream};
use crate::resolve::{Found, LookupError, Resolver, library};
use crate::serve;

/// A URL of the few kinds that are known.
struct Target<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
    authority: &'a str,
    path: &'a str,
}

/// Who is asked for names.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Names {
    /// Ask this server, instead of those in resolv.conf; names are then taken as they are
    #[arg(long)]
    server: Option<IpAddr>,
    /// Let the C library ask
    #[arg(long, conflicts_with = "server")]
    libc: bool,
    /// Only their IPv6 addresses
    #[arg(long)]
    six: bool,
}

impl Names {
    async fn lookup(&self, name: &str) -> Result<Result<Found, LookupError>> {
        let mut found = if self.libc {
            library(name).await
        } else {
            let resolver = self.server.map_or_else(Resolver::of_the_pod, |server| Ok(Resolver::of_server(server)));
            resolver?.lookup(name).await
        };
        if let (true, Ok(found)) = (self.six, &mut found) {
            found.addresses.retain(IpAddr::is_ipv6);
        }
        Ok(found)
    }
}

/// Asks `url` and prints `name` and `address` that it was asked at, and the `answer`.
pub(crate) async fn print(url: &str, patience: Duration, names: &Names) -> Result<()> {
    let asked = timeout(patience, ask(url, names)).await;
    let line = asked.with_context(|| format!("{url} did not answer in {patience:?}"))??;
    writeln!(io::stdout(), "{line}").context("standard output")
}

async fn ask(url: &str, names: &Names) -> Result<Value> {
    let target = Target::parse(url)?;
    let found = names.lookup(target.host).await?.with_context(|| format!("looking up {}", target.host))?;
    let address = *found.addresses.first().context("no address")?;
    let answer = target.ask(SocketAddr::new(address, target.port)).await;
    let answer = answer.with_context(|| format!("{url} at {address}"))?;
    Ok(json!({ "name": found.name, "address": address, "answer": answer }))
}

/// Asks for the addresses of `name` and prints them, or the error's word as `error`.
pub(crate) async fn print_lookup(name: &str, names: &Names) -> Result<()> {
    let line = match names.lookup(name).await? {
        Ok(found) => json!({ "name": found.name, "addresses": found.addresses, "ttl": found.ttl.as_secs() }),
        Err(error) => json!({ "error": error.to_string() }),
    };
    writeln!(io::stdout(), "{line}").context("standard output")
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} is no URL"))?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let standard = match scheme {
            "http" | "h2c" | "ws" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let bracketed = authority.ends_with(']');
        let (host, port) = match authority.rsplit_once(':').filter(|_| !bracketed) {
            Some((host, port)) => (host, port.parse().with_context(|| format!("{port} is no port"))?),
            None => (authority, standard.with_context(|| format!("{url} names no port"))?),
        };
        Ok(Self { scheme, host, port, authority, path })
    }

    async fn ask(&self, address: SocketAddr) -> Result<Value> {
        if self.scheme == "udp" {
            return parsed(&stream::datagram(address).await?);
        }
        let stream = connect(address).await?;
        match self.scheme {
            "http" => self.http(Sender::first(stream).await?).await,
            "h2c" => self.http(Sender::second(stream).await?).await,
            "https" => self.http(Sender::secure(stream, self.host).await?).await,
            "grpc" => self.grpc(Sender::second(stream).await?).await,
            "ws" => {
                let mut socket = Socket::open(stream, self.authority, self.path).await?;
                socket.send("there and back").await?;
                let Next::Text(text) = socket.next().await? else { bail!("closed instead of an answer") };
                if text != "there and back" {
                    bail!("another message came back: {text}");
                }
                let told = parsed(socket.told.as_bytes())?;
                socket.close().await?;
                Ok(told)
            }
            "tcp" => {
                let mut tcp = Tcp::open(stream).await?;
                tcp.exchange().await?;
                let told = parsed(&tcp.told)?;
                tcp.close().await?;
                Ok(told)
            }
            other => bail!("{other}:// is not known"),
        }
    }

    async fn http(&self, mut sender: Sender) -> Result<Value> {
        let (authority, path) = (self.authority.to_owned(), self.path.to_owned());
        let answer = sender.ask(&Question { authority, path, grpc: None }).await?.answer()?;
        parsed(&answer.body)
    }

    /// A unary call, then a stream of three; both must end with status 0 in their trailers.
    async fn grpc(&self, mut sender: Sender) -> Result<Value> {
        let mut told = Vec::new();
        for (path, message, count) in [(serve::SAY, "hello", 1), (serve::COUNT, "3", 3)] {
            let grpc = Some(serve::frame(message));
            let question = Question { authority: self.authority.to_owned(), path: path.to_owned(), grpc };
            let answer = sender.ask(&question).await?.answer()?;
            if answer.trailers.get("grpc-status").is_none_or(|status| status != "0") {
                bail!("{path}: trailers {:?}", answer.trailers);
            }
            let messages = serve::messages(&answer.body).context("messages that cannot be read")?;
            if messages.len() != count {
                bail!("{path}: {} messages instead of {count}", messages.len());
            }
            told.extend(messages);
        }
        parsed(told.first().map_or(&[][..], |text| text.as_bytes()))
    }
}

/// The JSON in the first line.
fn parsed(text: &[u8]) -> Result<Value> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).with_context(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every protocol against the echo server, on loopback.
    #[tokio::test]
    async fn every_protocol_is_answered() {
        let server = serve::start(&serve::Ports { http: 0, tls: 0, tcp: 0, udp: 0 }, &serve::Behaviour::default())
            .await
            .unwrap();
        let ports = &server.ports;
        for (scheme, port, protocol) in [
            ("http", ports.http, "HTTP/1.1"),
            ("h2c", ports.http, "HTTP/2"),
            ("grpc", ports.http, "HTTP/2"),
            ("ws", ports.http, "HTTP/1.1"),
            ("https", ports.tls, "HTTP/1.1"),
            ("tcp", ports.tcp, ""),
            ("udp", ports.udp, ""),
        ] {
            let url = format!("{scheme}://127.0.0.1:{port}/some/path");
            let told = ask(&url, &Names::default()).await.unwrap();
            assert_eq!(told["answer"]["source"], "127.0.0.1", "{url}: {told}");
            assert_eq!(told["answer"]["protocol"].as_str().unwrap_or_default(), protocol, "{url}: {told}");
        }
        let refused = ask(&format!("http://127.0.0.1:{}/status/503", ports.http), &Names::default()).await.unwrap_err();
        assert!(format!("{refused:#}").ends_with("status 503"), "{refused:#}");
        server.stop().await;
    }

    #[test]
    fn urls() {
        for (url, want) in [
            ("http://web.shop.maesh", Some(("web.shop.maesh", 80, "/"))),
            ("http://[fd00::1]/a", Some(("[fd00::1]", 80, "/a"))),
            ("tcp://db:5432", Some(("db", 5432, "/"))),
            ("tcp://db", None),
            ("db:5432", None),
        ] {
            let target = Target::parse(url).ok();
            assert_eq!(target.map(|target| (target.host, target.port, target.path)), want, "{url}");
        }
    }
}
