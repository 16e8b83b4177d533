use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring, server::Acceptor, version};

use super::*;

/// The first flight of a real client.
pub(crate) fn client_hello(name: &str, tls13: bool) -> Vec<u8> {
    let versions = if tls13 { &version::TLS13 } else { &version::TLS12 };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[versions])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A hello with an extension of `padding` bytes before the name.
pub(crate) fn padded_hello(name: &str, padding: usize) -> Vec<u8> {
    let names = names(&[(HOST_NAME, name.as_bytes())]);
    records(&hello(&[(21, vec![0; padding]), (SERVER_NAME, names)]), RECORD)
}

/// A hello with the given extensions, written by hand.
fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    let all: Vec<u8> =
        extensions.iter().flat_map(|(kind, value)| [kind.to_be_bytes().to_vec(), counted(value)].concat()).collect();
    body.extend(counted(&all));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], &body].concat()
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// One name in a list of names.
fn names(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = entries.iter().flat_map(|(kind, name)| [vec![*kind], counted(name)].concat()).collect();
    counted(&list)
}

/// Wraps a handshake message into records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [vec![HANDSHAKE, 3, 1], counted(part)].concat()).collect()
}

fn named(name: &str) -> Hello {
    Hello::Named(name.into())
}

#[test]
fn hellos_of_real_clients() {
    for (name, tls13, want) in [
        ("db.shop.maesh", true, named("db.shop.maesh")),
        ("DB.Shop.Maesh", true, named("db.shop.maesh")),
        ("db.shop.maesh", false, named("db.shop.maesh")),
        ("10.0.0.1", true, Hello::Unnamed),
    ] {
        assert_eq!(read(&client_hello(name, tls13)), want, "{name}");
    }
}

#[test]
fn hellos_written_by_hand() {
    let sni = |name: &[u8]| (SERVER_NAME, names(&[(HOST_NAME, name)]));
    let long = [b"a".repeat(63), b"b".repeat(64)].join(&b'.');
    for (case, extensions, want) in [
        ("a name", vec![sni(b"a.b")], named("a.b")),
        ("after others", vec![(43, vec![2, 3, 4]), sni(b"a.b")], named("a.b")),
        ("trailing dot", vec![sni(b"a.b.")], named("a.b")),
        ("unknown type before it", vec![(SERVER_NAME, names(&[(9, b"?"), (HOST_NAME, b"a")]))], named("a")),
        ("no extension", vec![], Hello::Unnamed),
        ("empty list", vec![(SERVER_NAME, names(&[]))], Hello::Unnamed),
        ("empty name", vec![sni(b"")], Hello::Unnamed),
        ("only a dot", vec![sni(b".")], Hello::Unnamed),
        ("empty label", vec![sni(b"a..b")], Hello::Unnamed),
        ("long label", vec![sni(&long)], Hello::Unnamed),
        ("not ASCII", vec![sni("müll".as_bytes())], Hello::Unnamed),
        ("not UTF-8", vec![sni(&[0xff, 0xfe])], Hello::Unnamed),
        ("a zero inside", vec![sni(b"a\0.b")], Hello::Unnamed),
        ("an address", vec![sni(b"10.0.0.1")], Hello::Unnamed),
        ("two names", vec![(SERVER_NAME, names(&[(HOST_NAME, b"a"), (HOST_NAME, b"b")]))], Hello::Unnamed),
        ("the extension twice", vec![sni(b"a"), sni(b"b")], Hello::Unnamed),
        ("bytes after the list", vec![(SERVER_NAME, [names(&[(HOST_NAME, b"a")]), vec![0]].concat())], Hello::Unnamed),
        ("list too short", vec![(SERVER_NAME, vec![0, 9, 0])], Hello::Unnamed),
    ] {
        assert_eq!(read(&records(&hello(&extensions), RECORD)), want, "{case}");
    }
}

#[test]
fn what_is_no_hello() {
    let whole = records(&hello(&[(SERVER_NAME, names(&[(HOST_NAME, b"a")]))]), RECORD);
    let with = |index: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[index] = byte;
        bytes
    };
    for (case, bytes, want) in [
        ("nothing yet", vec![], Hello::Incomplete),
        ("HTTP", b"GET / HTTP/1.1\r\n".to_vec(), Hello::NotTls),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n".to_vec(), Hello::NotTls),
        ("PostgreSQL's request for TLS", vec![0, 0, 0, 8, 4, 210, 22, 47], Hello::NotTls),
        ("an alert", with(0, 21), Hello::NotTls),
        ("SSL 2", with(1, 2), Hello::NotTls),
        ("an empty record", vec![HANDSHAKE, 3, 1, 0, 0], Hello::NotTls),
        ("a record that is too long", vec![HANDSHAKE, 3, 1, 0x40, 1], Hello::NotTls),
        ("another handshake message", with(5, 2), Hello::NotTls),
        ("a hello of 16 MiB", [&[HANDSHAKE, 3, 1, 0, 4], &[CLIENT_HELLO, 255, 255, 255][..]].concat(), Hello::Unnamed),
        ("another record in its middle", [&records(&whole[5..10], 5)[..], &[21, 3, 1, 0, 2]].concat(), Hello::Unnamed),
        ("one byte", vec![HANDSHAKE], Hello::Incomplete),
    ] {
        assert_eq!(read(&bytes), want, "{case}");
    }
}

proptest! {
    #[test]
    fn any_records_and_any_beginning(size in 1_usize..600, cut in 0.0_f64..1.0) {
        let message = client_hello("db.shop.maesh", true).split_off(5);
        let whole = records(&message, size);
        prop_assert_eq!(read(&whole), named("db.shop.maesh"));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let cut = (cut * whole.len() as f64) as usize;
        prop_assert_eq!(read(&whole[..cut]), Hello::Incomplete);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let _ = read(&records(&bytes, 100));
    }

    /// Whatever is done to a hello, a name that is read from it is the one that a TLS server reads.
    #[test]
    fn never_another_name_than_a_server_reads(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = client_hello("db.shop.maesh", true);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Hello::Named(name) = read(&bytes) {
            let mut acceptor = Acceptor::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok_and(|read| read > 0) {}
            if let Ok(Some(accepted)) = acceptor.accept() {
                let hello = accepted.client_hello();
                let theirs = hello.server_name().map(str::to_ascii_lowercase);
                prop_assert_eq!(theirs.as_deref(), Some(&*name));
            }
        }
    }
}
