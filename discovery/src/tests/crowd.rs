//! Strangers at the discovery port: who does not authenticate does not keep subscribers out.

use std::{io::ErrorKind, net::SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use super::{
    tcp::{listen, over_tcp, secret, trust},
    *,
};

/// A connection from a loopback address with this last byte.
fn connect(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 1, last], 0)).into()).unwrap();
    socket.connect_timeout(&to.into(), LONG).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 16]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Silent connections last for some seconds, so a slow machine has several tries to be quicker than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_does_not_wait_for_those_of_silent_peers() {
    let (_folder, ca, tls) = trust();
    let server = serve(&complete(&[name("shop/web", 1)]));
    let (address, _end) = listen(&server, Some(&tls), secret(), "127.0.0.1:0").await;
    for _ in 0..10 {
        let to = address.parse().unwrap();
        let silent: Vec<TcpStream> = (0..400).map(|number| connect((number % 4) as u8 + 1, to)).collect();
        let token = Token::Value("a secret of some length".into());
        let mut role = role(over_tcp(&server, &[&address], Some(&ca), token));
        role.step().await;
        if silent.iter().all(is_open) {
            return;
        }
    }
    panic!("the subscriber was served only after silent connections had been closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_close_their_own_connections() {
    let (_folder, ca, tls) = trust();
    let server = serve(&complete(&[name("shop/web", 1)]));
    let (address, _end) = listen(&server, Some(&tls), secret(), "127.0.0.1:0").await;
    let to = address.parse().unwrap();
    let token = Token::Value("a secret of some length".into());
    let mut role = role(over_tcp(&server, &[&address], Some(&ca), token));
    role.step().await;
    let limit = ServerOptions::default().unauthenticated.per_source;
    let silent: Vec<TcpStream> = (0..2 * limit).map(|_| connect(9, to)).collect();
    tokio::time::timeout(LONG, async {
        while silent.iter().filter(|stream| is_open(stream)).count() > limit {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("connections beyond the limit stay open");
    assert!(server.crowded_out() > 0);
    assert_eq!(role.subscribed.status.failures(), 0, "who has authenticated stays");
}
