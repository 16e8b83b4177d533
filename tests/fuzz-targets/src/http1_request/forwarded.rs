//! What of a request arrives at an endpoint, and what must not.

use std::collections::BTreeMap;

use super::{
    answers::answers,
    lab::Heard,
    reader::{Field, Request},
};

/// Judges what came of the requests that were `asked`.
pub(super) fn judge(asked: &[Request], heard: &Heard) {
    assert_eq!(heard.violations, Vec::<String>::new(), "what the endpoint got");
    let answers = answers(&heard.answers, |at| asked.get(at).map(|request| request.method == "HEAD"));
    assert!(answers.len() <= asked.len() + 1, "{answers:?} to {} requests", asked.len());
    let mut last = None;
    for (at, answer) in answers.iter().enumerate() {
        let Some(number) = answer.number else { continue };
        assert_eq!(answer.status, 200);
        let request = asked.get(at).unwrap_or_else(|| panic!("{number} is no whole request"));
        let forwarded = heard.requests.iter().find(|(of, _)| *of == number);
        let (_, forwarded) = forwarded.unwrap_or_else(|| panic!("{number} is another one's"));
        assert!(last.is_none_or(|last| last < number), "in order");
        last = Some(number);
        is_forwarded(request, forwarded);
        // RFC 9112 section 6.1.
        let has_both = request.has("content-length") && request.has("transfer-encoding");
        assert!(!has_both || at + 1 == answers.len(), "the connection goes on after both framings");
    }
    // What was answered and not heard: the connection broke.
    let unheard = heard.requests.iter().filter(|(number, _)| answers.iter().all(|it| it.number != Some(*number)));
    for (_, forwarded) in unheard {
        let mut rest = asked.get(answers.len()..).unwrap_or_default().iter();
        assert!(rest.any(|request| request.method == forwarded.method), "{forwarded:?}");
    }
}

/// `to` is what the proxy makes of `from`.
fn is_forwarded(from: &Request, to: &Request) {
    assert!(to.is_1_1);
    assert_eq!(to.method, from.method);
    let (authority, target) = split_target(&from.target);
    assert_eq!(String::from_utf8_lossy(&to.target), String::from_utf8_lossy(&target));
    let host = authority.or_else(|| from.all("host").next().map(<[u8]>::to_vec));
    assert_eq!(to.all("host").collect::<Vec<_>>(), host.iter().map(|host| &**host).collect::<Vec<_>>());
    assert_eq!(to.body, from.body);
    assert_eq!(kept_trailers(&to.trailers), kept_trailers(&from.trailers));
    assert_eq!(kept(to), kept(from));
    // Set by the mesh, once, whatever the caller writes.
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-maesh-hops", ""),
    ] {
        let values: Vec<&[u8]> = to.all(name).collect();
        let is_websocket = name == "x-forwarded-proto" && values == [b"ws"];
        assert!(
            values.len() == 1 && (value.is_empty() || values[0] == value.as_bytes() || is_websocket),
            "{name}: {to:?}"
        );
    }
    for (name, _) in &to.fields {
        let imitates = name.contains('_') && is_of_mesh(&name.replace('_', "-"));
        assert!(!imitates && name != "forwarded" && name != "expect", "{name}");
    }
}

/// The authority in a target, if it has one, and what is left.
fn split_target(target: &[u8]) -> (Option<Vec<u8>>, Vec<u8>) {
    let scheme = [&b"http://"[..], b"https://"];
    let absolute = scheme.iter().find_map(|scheme| {
        let (begin, rest) = target.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = absolute else { return (None, target.to_vec()) };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() };
    (Some(authority.to_vec()), path)
}

fn is_of_mesh(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name.starts_with("x-maesh-") || name == "x-real-ip" || name == "forwarded"
}

/// The fields that a proxy passes on as they are, with their values in order.
fn kept(request: &Request) -> BTreeMap<&str, Vec<&[u8]>> {
    let of_connection = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "content-length",
        "upgrade",
        "http2-settings",
        "proxy-authenticate",
        "proxy-authorization",
        "expect",
        "host",
    ];
    let named: Vec<String> = request
        .all("connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|word| String::from_utf8_lossy(word.trim_ascii()).to_ascii_lowercase())
        .collect();
    let mut kept = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &request.fields {
        let is_kept =
            !of_connection.contains(&&**name) && !is_of_mesh(&name.replace('_', "-")) && !named.contains(name);
        if is_kept {
            kept.entry(&**name).or_default().push(&**value);
        }
    }
    kept
}

/// The trailers that are passed on.
fn kept_trailers(trailers: &[Field]) -> BTreeMap<&str, Vec<&[u8]>> {
    let mut kept = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in trailers {
        let of_head = ["host", "content-length", "transfer-encoding", "connection"].contains(&&**name);
        if !of_head && !is_of_mesh(&name.replace('_', "-")) {
            kept.entry(&**name).or_default().push(&**value);
        }
    }
    kept
}
