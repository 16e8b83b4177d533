//! Connections, datagrams, and streams that end with their grant.

use super::*;

/// Cases 32 and 33: connections are reset before an endpoint is called, datagrams are dropped.
#[test]
fn connections_and_datagrams_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let udp = Datagrams::start("log");
    let db = named("db");
    let mut text =
        service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp") + &slices("shop", "db", &[db]) + "---\n";
    text += &service("shop", "log", 5140, "").replace("port: 5140\n", "port: 5140\n    protocol: UDP\n");
    text += &slices("shop", "log", &[udp.at]).replace("- name: main\n", "- name: main\n  protocol: UDP\n");
    text += "---\n";
    // Both listen on this address.
    text += &(pod("shop", "b", "bob", "127.0.0.1", "") + &callers());
    text += &(route("TCPRoute", "t", "5432")
        + &route("UDPRoute", "u", "5140")
        + &ann_may(&format!("{TCP}, {{kind: UDPRoute, name: u}}")));
    save(folder.path(), "all.yaml", &text);
    let dev = Dev::start_with(folder.path(), &["--acl"]);

    let at = dev.served_at("db.shop.maesh");
    let hear = |from: &str| {
        let mut heard = String::new();
        let mut stream = connect_from(from.parse().unwrap(), at).unwrap();
        let read = stream.read_to_string(&mut heard);
        read.map(|_| heard).map_err(|error| error.kind())
    };
    assert_eq!(hear(ANN), Ok("db".to_owned()));
    for from in [CYD, OTHER_ANN, HOST, NOBODY] {
        assert_eq!(hear(from), Err(ErrorKind::ConnectionReset), "{from}");
    }
    let mut stream = connect_from(ANN.parse().unwrap(), at).unwrap();
    stream.write_all(b"x").unwrap();

    let at = dev.served_at("log.shop.maesh");
    let answers = |from: &str, times: usize| {
        let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).unwrap();
        socket.set_read_timeout(Some(if times == 1 { PATIENCE } else { PATIENCE / 100 })).unwrap();
        let mut bytes = [0; 16];
        socket.send_to(b"!", at).unwrap();
        socket.recv(&mut bytes).is_ok()
    };
    assert!(answers(ANN, 1), "granted");
    for from in [CYD, OTHER_ANN, HOST, NOBODY] {
        assert!(!answers(from, 2), "{from}");
    }
}

/// An endpoint that reads a head, writes these bytes, and then says nothing more.
fn saying(bytes: &'static [u8], address: &str) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).and_then(|_| stream.write_all(bytes));
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    at
}

/// Streams that have begun end when the grant, or the identity of their caller, is gone; others go on.
#[test]
fn streams_end_with_their_grant() {
    let upgrade = "Connection: upgrade\r\nUpgrade: chat\r\n";
    for (case, revoke) in [("the grant", ""), ("the identity", "eve")] {
        let folder = tempfile::tempdir().unwrap();
        let endpoints = [
            ("silent", saying(b"", "127.0.34.8")),
            ("begun", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin", "127.0.34.8")),
            (
                "upgraded",
                saying(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nbegin",
                    "127.0.34.8",
                ),
            ),
        ];
        let (db, udp) = (Backend::echo_at("127.0.34.8"), Datagrams::start("log"));
        let mut text = pod("shop", "bob", "bob", "127.0.34.8", "") + &pod("shop", "log", "bob", "127.0.0.1", "");
        for (name, at) in endpoints {
            text += &(service("shop", name, 8080, "") + &slices("shop", name, &[at]) + "---\n");
        }
        text += &(service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp")
            + &slices("shop", "db", &[db.address])
            + "---\n");
        text += &service("shop", "log", 5140, "").replace("port: 5140\n", "port: 5140\n    protocol: UDP\n");
        text += &slices("shop", "log", &[udp.at]).replace("- name: main\n", "- name: main\n  protocol: UDP\n");
        save(folder.path(), "all.yaml", &text);
        save(folder.path(), "callers.yaml", &callers());
        let grants = |who: &str| {
            let rules = format!(
                "rules: [{TCP}, {{kind: UDPRoute, name: u}}], sources: [{{kind: ServiceAccount, name: {who}}}]"
            );
            target("v1alpha3", who, &rules)
        };
        let routes = route("TCPRoute", "t", "") + &route("UDPRoute", "u", "");
        save(folder.path(), "acl.yaml", &(routes.clone() + &grants("ann") + &grants("cyd")));
        let dev = Dev::start_with(folder.path(), &["--acl"]);
        let at = |name: &str| dev.served_at(&format!("{name}.shop.maesh"));
        let open = |from: &str, name: &str, fields: &str| {
            let mut stream = connect_from(from.parse().unwrap(), at(name)).unwrap();
            write!(stream, "GET / HTTP/1.1\r\nHost: {name}.shop.maesh\r\n{fields}\r\n").unwrap();
            stream
        };
        let begun = |mut stream: TcpStream| {
            let mut head = Vec::new();
            while !head.ends_with(b"begin") {
                let mut byte = [0];
                assert_eq!(stream.read(&mut byte).unwrap(), 1, "{case}: {}", String::from_utf8_lossy(&head));
                head.push(byte[0]);
            }
            stream
        };
        let echo = |stream: &mut TcpStream| {
            let mut bytes = [0; 2];
            stream.write_all(b"hi").and_then(|()| stream.read_exact(&mut bytes))
        };
        let mut silent = open(ANN, "silent", "");
        let mut streams = vec![begun(open(ANN, "begun", "")), begun(open(ANN, "upgraded", upgrade))];
        let mut connection = connect_from(ANN.parse().unwrap(), at("db")).unwrap();
        echo(&mut connection).unwrap();
        let mut other = connect_from(CYD.parse().unwrap(), at("db")).unwrap();
        echo(&mut other).unwrap();
        let flow = UdpSocket::bind((ANN, 0)).unwrap();
        flow.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; 16];
        flow.send_to(b"!", at("log")).unwrap();
        flow.recv(&mut bytes).unwrap();

        if revoke.is_empty() {
            save(folder.path(), "acl.yaml", &(routes + &grants("cyd")));
        } else {
            let other_pod = callers().replacen("name: ann, namespace: shop", "name: eve, namespace: shop", 1);
            save(
                folder.path(),
                "callers.yaml",
                &other_pod.replacen("serviceAccountName: ann", "serviceAccountName: eve", 1),
            );
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(silent.read(&mut byte).unwrap(), 1, "{case}: {}", String::from_utf8_lossy(&answer));
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("x-maesh-reason: denied"), "{case}: {answer}");
        for stream in &mut streams {
            let ended = stream.read(&mut bytes);
            assert!(
                matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
                "{case}"
            );
        }
        let ended = connection.read(&mut bytes).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset), "{case}");
        flow.set_read_timeout(Some(PATIENCE / 100)).unwrap();
        flow.send_to(b"!", at("log")).unwrap();
        assert!(flow.recv(&mut bytes).is_err(), "{case}: a datagram of a flow that had begun");
        echo(&mut other).unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}
