use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{clock::Clock, connect::Connector, upstream::ResponseLimits};

fn local() -> Arc<WorkerUpstream> {
    WorkerUpstream::new((0, 1), Clock::new(), Connector::default(), ResponseLimits { bytes: 1024, fields: 16 })
}

async fn pair(peer: &Peer, listener: &TcpListener) -> (Box<h1::PooledConnection>, TcpStream) {
    let (near, far) = tokio::join!(TcpStream::connect(peer.address), listener.accept());
    (h1::PooledConnection::new(Link::Plain(Socket::new(near.expect("connected")))), far.expect("accepted").0)
}

async fn listening() -> (TcpListener, Arc<Peer>) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
    let peer = Peer::new(listener.local_addr().expect("bound"));
    (listener, peer)
}

/// Waits until the kernel has what the far side did.
async fn is_dead(connection: &h1::PooledConnection) {
    let seen = async {
        while !connection.is_dead(true) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("seen in time");
}

#[tokio::test]
async fn what_the_endpoint_closed_is_never_taken() {
    for case in ["FIN", "RST", "bytes"] {
        let (local, (listener, peer)) = (local(), listening().await);
        let slot = PoolSlot::new(&peer, &local);
        let (alive, _far) = pair(&peer, &listener).await;
        slot.put(alive);
        let (dead, mut far) = pair(&peer, &listener).await;
        match case {
            "FIN" => far.shutdown().await.expect("shut down"),
            "RST" => far.set_zero_linger().map(|()| drop(far)).expect("set"),
            _ => far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.expect("written"),
        }
        is_dead(&dead).await;
        slot.put(dead);
        let put = local.clock.coarse();
        while local.clock.coarse() == put {
            local.clock.advance();
        }
        assert!(peer.pools.take(&local, None).is_some_and(|connection| !connection.is_dead(true)), "{case}");
        assert!(peer.pools.take(&local, None).is_none(), "{case}: only the one that is alive");
    }
}

#[tokio::test]
async fn nothing_is_kept_to_a_retired_peer() {
    let (local, (listener, peer)) = (local(), listening().await);
    let slot = PoolSlot::new(&peer, &local);
    let (connection, mut far) = pair(&peer, &listener).await;
    slot.put(connection);
    peer.retire();
    assert_eq!(far.read(&mut [0; 1]).await.expect("an end"), 0);
    let (connection, mut far) = pair(&peer, &listener).await;
    slot.put(connection);
    assert_eq!(far.read(&mut [0; 1]).await.expect("an end"), 0);
    assert!(peer.pools.take(&local, None).is_none());
    peer.reinstate();
    let (connection, _far) = pair(&peer, &listener).await;
    slot.put(connection);
    assert!(peer.pools.take(&local, None).is_some());
}

#[tokio::test]
async fn a_pool_is_bounded() {
    let (local, (listener, peer)) = (local(), listening().await);
    let slot = PoolSlot::new(&peer, &local);
    let mut ends = Vec::new();
    for _ in 0..KEPT + 3 {
        let (connection, far) = pair(&peer, &listener).await;
        slot.put(connection);
        ends.push(far);
    }
    assert_eq!(peer.pools.of(&local).kept.lock().h1.len(), KEPT);
}
