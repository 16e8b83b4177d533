//! Endpoints of TCP and UDP that say their name.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, UdpSocket},
    thread::JoinHandle,
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server that says its name to whoever connects.
pub fn named(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let at = listener.local_addr().expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // What the caller sent is read, or closing would reset the connection.
            let _ = stream.write_all(name.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    at
}

/// An endpoint that sends every datagram back, with its name before it, until an empty one comes.
pub struct Datagrams {
    /// Where it listens.
    pub at: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Datagrams {
    /// Starts one of this name.
    pub fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind((LOCAL, 0)).expect("a socket");
        let at = socket.local_addr().expect("a socket");
        let task = std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            loop {
                match socket.recv_from(&mut bytes) {
                    Ok((0, _)) => return,
                    Ok((length, from)) => drop(socket.send_to(&[name.as_bytes(), &bytes[..length]].concat(), from)),
                    // A caller that is gone.
                    Err(_) => {}
                }
            }
        });
        Self { at, task: Some(task) }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        let end = UdpSocket::bind((LOCAL, 0)).expect("a socket");
        end.send_to(&[], self.at).expect("a socket");
        let _ = self.task.take().map(JoinHandle::join);
    }
}
