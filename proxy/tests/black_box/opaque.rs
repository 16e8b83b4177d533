//! Streams that are carried as they are, and TLS by the name that it says.

use std::net::{IpAddr, SocketAddr};

use crate::support::{
    Fed, LOCAL, Raw, ask, config, endpoint, endpoints, free_port, get, listener, policy, service, within,
};
use maesh_config::{
    Kind, Resource,
    model::{Claim, Protocol, Scheme},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn opaque_streams() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::raw(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let _ = stream.write_all(&all).await;
    })
    .await;
    let address = fed.listen_on(free_port(), Some(("db.shop", 5432)), false, &[]).await;
    fed.define("db.shop", 5432, Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("db.shop", 5432, Protocol::Tcp, vec![endpoint(server)]);
    fed.name("db.shop", 5432, address.port(), Protocol::Tcp, &[IpAddr::from([10, 96, 0, 9])]).await;
    let mut raw = Raw::to(address).await;
    raw.say("all of it").await;
    raw.stream.shutdown().await.expect("half closed");
    assert_eq!(raw.rest().await, "all of it");
    fed.push_endpoints("db.shop", 5432, Protocol::Tcp, vec![]).await;
    // The reset may come as early as the end of the handshake.
    let error = match tokio::net::TcpStream::connect(address).await {
        Ok(mut stream) => within(stream.read(&mut [0; 8])).await.expect_err("reset"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// A hello that says `name`, and nothing that could be agreed on: enough to be routed by.
fn hello(name: &str) -> Vec<u8> {
    let length = |len: usize| u16::try_from(len).expect("short").to_be_bytes();
    let mut entry = vec![0];
    entry.extend(length(name.len()));
    entry.extend(name.as_bytes());
    let mut extension = vec![0, 0];
    extension.extend(length(entry.len() + 2));
    extension.extend(length(entry.len()));
    extension.extend(entry);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(length(extension.len()));
    body.extend(extension);
    let mut record = vec![22, 3, 1];
    record.extend(length(body.len() + 4));
    record.extend([1, 0]);
    record.extend(length(body.len()));
    record.extend(body);
    record
}

#[tokio::test]
async fn tls_on_a_shared_port_goes_by_its_name() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::raw(|mut stream| async move {
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            let _ = stream.write_all(&bytes[..read]).await;
        }
    })
    .await;
    let port = free_port();
    let mut both = listener(port, None, true, &[]);
    both.tls = true;
    both.sni = vec![Claim { host: "www.example.com".into(), service: service("tls.shop") }];
    assert!(fed.push(Kind::Listener, vec![Resource::Listener(both)], vec![]).await.is_empty());
    let address = SocketAddr::new(LOCAL, port);
    fed.define("tls.shop", port, Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("tls.shop", port, Protocol::Tcp, vec![endpoint(server)]);
    fed.name("tls.shop", port, port, Protocol::Tcp, &[]).await;
    fed.define("https.shop", port, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("https.shop", port, Protocol::Http, vec![endpoint(server)]);
    fed.name("https.shop", port, port, Protocol::Http, &[]).await;
    let web = endpoints::echo(false, "web").await;
    fed.define("web.shop", port, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", port, Protocol::Http, vec![endpoint(web.address)]);
    fed.name("web.shop", port, port, Protocol::Http, &[]).await;
    for (name, routed) in [
        ("tls.shop.maesh", true),
        ("TLS.shop", true),
        ("www.example.com", true),
        // What carries HTTP otherwise has its own names as well.
        ("https.shop.maesh", true),
        ("nobody.shop.maesh", false),
        ("example.com", false),
    ] {
        let mut raw = Raw::to(address).await;
        let hello = hello(name);
        raw.stream.write_all(&hello).await.expect("written");
        raw.stream.shutdown().await.expect("half closed");
        let mut back = Vec::new();
        let _ = within(raw.stream.read_to_end(&mut back)).await;
        assert_eq!(back == hello, routed, "{name}: {} bytes back", back.len());
    }
    assert!(ask(address, &get("web.shop.maesh", "/")).await.1.starts_with("web "), "HTTP beside it");
}
