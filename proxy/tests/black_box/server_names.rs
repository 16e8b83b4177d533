//! TLS on a shared port: whatever a hello looks like, it reaches the Service whose name it says, untouched, or nobody.

use std::{net::SocketAddr, time::Duration};

use maesh_config::{
    Kind, Resource,
    model::{Claim, Protocol, Scheme},
};
use maesh_proxy::{Config, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Fed, LOCAL, Raw, ask, config, endpoint, endpoints, free_port, get, listener, policy, service, within,
};

const NAME: &str = "tls.shop.maesh";
const OTHER: &str = "other.shop.maesh";

/// Longest payload of a record.
const RECORD: usize = 1 << 14;

/// A count of two bytes, and what it counts.
fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &counted(body)].concat()
}

fn server_name(name: &str) -> Vec<u8> {
    extension(0, &counted(&[&[0][..], &counted(name.as_bytes())].concat()))
}

/// A ClientHello with these extensions.
fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // A session, two suites of which the first is GREASE (RFC 8701), no compression.
    body.extend([2, 1, 1, 0, 4, 0x0a, 0x0a, 0x13, 0x01, 1, 0]);
    body.extend(counted(&extensions.concat()));
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

/// A message in records of `size` bytes at most.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [vec![22, 3, 1], counted(part)].concat()).collect()
}

/// What a caller of TLS with this server name sends first.
pub(crate) fn opening(name: &str) -> Vec<u8> {
    records(&hello(&[server_name(name)]), RECORD)
}

/// A proxy with two Services that share a port, and a third one with HTTP there. Their endpoints say who they are and then
/// send back what they get.
async fn fed(limits: Limits) -> (Fed, SocketAddr, endpoints::Server) {
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let port = free_port();
    let mut both = listener(port, None, true, &[]);
    both.tls = true;
    both.sni = vec![Claim { host: "www.example.com".into(), service: service("tls.shop") }];
    assert!(fed.push(Kind::Listener, vec![Resource::Listener(both)], vec![]).await.is_empty());
    for (name, says) in [("tls.shop", b't'), ("other.shop", b'o')] {
        let server = endpoints::raw(move |mut stream| async move {
            let mut bytes = vec![0; 4096];
            stream.write_all(&[says]).await.expect("written");
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..read]).await.is_err() {
                    return;
                }
            }
        })
        .await;
        fed.define(name, port, Protocol::Tcp, policy(Scheme::Http), Vec::new());
        fed.define_endpoints(name, port, Protocol::Tcp, vec![endpoint(server)]);
        fed.name(name, port, port, Protocol::Tcp, &[]).await;
    }
    let web = endpoints::echo(false, "web").await;
    fed.define("web.shop", port, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", port, Protocol::Http, vec![endpoint(web.address)]);
    fed.name("web.shop", port, port, Protocol::Http, &[]).await;
    (fed, SocketAddr::new(LOCAL, port), web)
}

/// Sends `bytes` in pieces, and returns what came back.
async fn carried(address: SocketAddr, bytes: &[u8], piece: usize) -> Vec<u8> {
    let raw = Raw::to(address).await;
    raw.stream.set_nodelay(true).expect("set");
    let (mut reader, mut writer) = raw.stream.into_split();
    let mut back = Vec::new();
    let sending = async {
        for part in bytes.chunks(piece) {
            // The proxy may have closed it already.
            if writer.write_all(part).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = writer.shutdown().await;
    };
    let receiving = async {
        let _ = within(reader.read_to_end(&mut back)).await;
    };
    tokio::join!(sending, receiving);
    back
}

#[tokio::test]
async fn a_hello_reaches_the_service_that_it_names() {
    let grease = || [extension(0x0a0a, b""), extension(0xfafa, b"x")];
    let padding = |bytes: usize| extension(21, &vec![0; bytes]);
    // Encrypted Client Hello: the name outside is the one to go by, and the one inside is nobody's business here.
    let outer = extension(0xfe0d, &[&[0, 0, 1, 0, 1, 9, 0, 0][..], &counted(&[5; 200])].concat());
    let plain = || hello(&[server_name(NAME)]);
    let (_fed, address, _web) = fed(Limits::default()).await;
    for (case, bytes, piece, to) in [
        ("as it is", records(&plain(), RECORD), 4096, Some(b't')),
        ("of the other Service", records(&hello(&[server_name(OTHER)]), RECORD), 4096, Some(b'o')),
        ("a name that a Service claims", records(&hello(&[server_name("www.example.com")]), RECORD), 4096, Some(b't')),
        ("byte by byte", records(&plain(), RECORD), 1, Some(b't')),
        ("a byte in each record", records(&plain(), 1), 4096, Some(b't')),
        ("a byte in each record, byte by byte", records(&plain(), 1), 1, Some(b't')),
        (
            "GREASE around it",
            records(&hello(&[grease()[0].clone(), server_name(NAME), grease()[1].clone()]), RECORD),
            100,
            Some(b't'),
        ),
        ("ECH", records(&hello(&[outer.clone(), server_name(NAME)]), RECORD), 100, Some(b't')),
        ("ECH alone", records(&hello(&[outer]), RECORD), 100, None),
        (
            "a name at the end of 16 KiB",
            records(&hello(&[padding(16_300), server_name(NAME)]), RECORD),
            1000,
            Some(b't'),
        ),
        (
            "over 16 KiB, in two records",
            records(&hello(&[padding(20_000), server_name(OTHER)]), RECORD),
            1000,
            Some(b'o'),
        ),
        ("over 16 KiB, in many records", records(&hello(&[padding(20_000), server_name(NAME)]), 500), 4096, Some(b't')),
        ("over 32 KiB", records(&hello(&[padding(33_000), server_name(NAME)]), RECORD), 4096, None),
        ("no name", records(&hello(&[grease()[0].clone()]), RECORD), 4096, None),
        ("no extensions", records(&hello(&[]), RECORD), 4096, None),
        ("two names", records(&hello(&[server_name(NAME), server_name(OTHER)]), RECORD), 4096, None),
        ("a name that nobody has", records(&hello(&[server_name("nobody.shop.maesh")]), RECORD), 4096, None),
        (
            "an HTTP Service of the same port",
            records(&hello(&[server_name("web.shop.maesh")]), RECORD),
            4096,
            Some(b'w'),
        ),
    ] {
        let back = carried(address, &bytes, piece).await;
        match to {
            // An endpoint of plain HTTP answers a hello as it likes, but it is asked.
            Some(b'w') => assert!(back.starts_with(b"HTTP/1.1 400") || back.is_empty(), "{case}"),
            Some(to) => assert!(back.split_first() == Some((&to, &bytes[..])), "{case}: {} bytes back", back.len()),
            None => assert!(back.is_empty(), "{case}: {} bytes back", back.len()),
        }
    }
    assert!(ask(address, &get("web.shop.maesh", "/")).await.1.starts_with("web "), "HTTP beside it");
}

/// Whoever says nothing, or half a hello, is closed after the time that a head may take.
#[tokio::test]
async fn silence_ends() {
    let whole = records(&hello(&[server_name(NAME)]), RECORD);
    let (_fed, address, _web) = fed(Limits { head_timeout: Duration::from_millis(200), ..Limits::default() }).await;
    for (case, bytes) in [("the type of a record", &whole[..1]), ("half a hello", &whole[..whole.len() / 2])] {
        let mut raw = Raw::to(address).await;
        raw.stream.write_all(bytes).await.expect("written");
        assert_eq!(raw.rest().await, "", "{case}");
    }
    assert!(carried(address, &whole, 4096).await.starts_with(b"t"), "others are served");
}
