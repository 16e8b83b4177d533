//! Peers over TCP that want more than their share.

use super::*;

/// Two thousand addresses: an answer of 32 KiB.
fn long() -> Update {
    let addresses = (0..2000_u32).map(|n| std::net::Ipv4Addr::from_bits(0x0a07_0000 + n).into()).collect();
    update(Kind::Name, [Resource::Name(name("data/long", Answer::Fixed(addresses), ""))])
}

#[tokio::test]
async fn long_answers_to_many_short_queries_all_arrive() {
    let responder = Responder::synced(config()).await;
    responder.apply(long()).await;
    let mut stream = TcpStream::connect(responder.at()).await.expect("connects");
    let queries: Vec<u8> = (0..100).flat_map(|id| framed(&query(id, "long.data.maesh"))).collect();
    stream.write_all(&queries).await.expect("sent");
    for id in 0..100_u16 {
        let reply = next(&mut stream).await;
        assert_eq!((&reply[..2], reply.len() > 32_000), (&id.to_be_bytes()[..], true), "{id}");
    }
}

#[tokio::test]
async fn who_reads_nothing_is_let_go() {
    let limits = StreamLimits { idle: Duration::from_millis(300), ..StreamLimits::of(1024) };
    let responder = Responder::synced(Config { tcp: limits, ..config() }).await;
    responder.apply(long()).await;
    let mut stream = TcpStream::connect(responder.at()).await.expect("connects");
    // More than all buffers between us hold.
    let queries: Vec<u8> = (0..1000).flat_map(|id| framed(&query(id, "long.data.maesh"))).collect();
    let _ = timeout(PATIENCE, stream.write_all(&queries)).await.expect("it closes, or takes all");
    let idle = || responder.metric("maesh_dns_connections_closed_total{reason=\"idle\"}");
    let ended = async {
        while idle() != Some(1) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.expect("let go");
    let asked = answered(&responder);
    assert!(asked < 1000, "what is not read is not answered: {asked}");
}

fn answered(responder: &Responder) -> u64 {
    responder.metric("maesh_dns_queries_total{transport=\"tcp\",type=\"A\"}").expect("counted")
}

#[tokio::test]
async fn it_stops_while_a_peer_reads_nothing() {
    let responder = Responder::synced(config()).await;
    responder.apply(long()).await;
    let mut stream = TcpStream::connect(responder.at()).await.expect("connects");
    let queries: Vec<u8> = (0..200).flat_map(|id| framed(&query(id, "long.data.maesh"))).collect();
    stream.write_all(&queries).await.expect("sent");
    next(&mut stream).await;
    timeout(PATIENCE, responder.dns.stop()).await.expect("it does not wait for the peer");
}

/// A connection from the address `from`, on which one query was answered.
async fn connection(responder: &Responder, from: [u8; 4]) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of loopback");
    let mut stream = socket.connect(responder.at()).await.expect("connects");
    stream.write_all(&framed(&query(1, "db.shop.maesh"))).await.expect("sent");
    next(&mut stream).await;
    stream
}

#[tokio::test]
async fn above_the_limit_the_oldest_connection_is_closed_where_each_source_has_one() {
    const LIMIT: u8 = 40;
    const NEWCOMERS: u8 = 15;
    let responder = Responder::synced(Config { tcp: StreamLimits::of(LIMIT.into()), ..config() }).await;
    let mut old = Vec::new();
    for n in 0..LIMIT {
        old.push(connection(&responder, [127, 0, 20, n + 1]).await);
    }
    let mut newcomers = Vec::new();
    for n in 0..NEWCOMERS {
        newcomers.push(connection(&responder, [127, 0, 21, n + 1]).await);
    }
    let (oldest, rest) = old.split_at_mut(NEWCOMERS.into());
    for stream in oldest {
        assert!(closed(stream).await, "one of the oldest is open");
    }
    for stream in rest.iter_mut().chain(&mut newcomers) {
        stream.write_all(&framed(&query(2, "db.shop.maesh"))).await.expect("sent");
        next(stream).await;
    }
    let crowded_out = responder.metric("maesh_dns_connections_closed_total{reason=\"crowded_out\"}");
    assert_eq!(crowded_out, Some(NEWCOMERS.into()));
}
