//! The server name in the first bytes of a TLS stream: what a server reads there, or nothing.
//!
//! The first two bytes say how the rest is cut.

use maesh_proxy::tls::sni::{Hello, LONGEST, read};
use rustls::server::Acceptor;

pub(crate) fn run(bytes: &[u8]) {
    let [cut, size, stream @ ..] = bytes else { return };
    let whole = read(stream);
    // What is decided stays so, however much more comes, as long as it is not too much.
    let beginning = read(&stream[..stream.len() * usize::from(*cut) / 256]);
    assert!(
        stream.len() >= LONGEST || beginning == Hello::Incomplete || beginning == whole,
        "{beginning:?}, then {whole:?}"
    );
    let Hello::Named(name) = &whole else { return };
    assert!(name.len() <= 253 && !name.ends_with('.') && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
    // Other records around the same message change nothing.
    let (mut message, mut rest) = (Vec::new(), stream);
    while let [22, 3, _, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((payload, next)) = after.split_at_checked(length) else { break };
        message.extend_from_slice(payload);
        rest = next;
    }
    let step = usize::from(*size).max(1) * 8;
    let again: Vec<u8> = message
        .chunks(step)
        .flat_map(|part| {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
            [&[22, 3, 1], &length[..], part].concat()
        })
        .collect();
    if again.len() < LONGEST {
        assert_eq!(read(&again), whole);
    }
    // A server that accepts the hello reads the same name.
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok_and(|read| read > 0) {}
    if let Ok(Some(accepted)) = acceptor.accept() {
        let theirs = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        assert_eq!(theirs.as_deref(), Some(&**name));
    }
}
