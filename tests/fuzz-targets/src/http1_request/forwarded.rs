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
    // A request of HTTP/1.0 may have none; one of HTTP/1.1 then has an empty one (RFC 9112 section 3.2).
    let host = authority.or_else(|| from.all("host").next().map(<[u8]>::to_vec)).unwrap_or_default();
    assert_eq!(to.all("host").collect::<Vec<_>>(), [&*host]);
    assert_eq!(to.body, from.body);
    assert_eq!(by_name(&to.trailers, |_| true), by_name(&from.trailers, may_trail));
    assert_eq!(by_name(&to.fields, |name| !is_set(name)), kept(from));
    let leaves_http = from.is_1_1 && from.has("upgrade") && to.has("upgrade");
    let connection: Vec<&[u8]> = to.all("connection").collect();
    assert_eq!(connection, if leaves_http { vec![&b"upgrade"[..]] } else { Vec::new() });
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

/// Whether the proxy sets this field itself, in place of the caller's.
fn is_set(name: &str) -> bool {
    ["host", "content-length", "transfer-encoding", "connection", "upgrade"].contains(&name) || is_of_mesh(name)
}

/// The fields that a proxy passes on as they are.
fn kept(request: &Request) -> Fields<'_> {
    let of_connection = [
        "keep-alive",
        "proxy-connection",
        "te",
        "http2-settings",
        "proxy-authenticate",
        "proxy-authorization",
        "expect",
    ];
    let named: Vec<String> = request
        .all("connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|word| String::from_utf8_lossy(word.trim_ascii()).to_ascii_lowercase())
        .collect();
    let mut kept = by_name(&request.fields, |name| {
        let imitates = is_of_mesh(&name.replace('_', "-"));
        !is_set(name) && !of_connection.contains(&name) && !imitates && !named.iter().any(|it| it == name)
    });
    // Several are as good as one, and an endpoint may know one only (RFC 6265 section 5.4).
    if let Some(cookies) = kept.get_mut("cookie") {
        cookies.retain(|cookie| !cookie.is_empty());
        *cookies = vec![cookies.join("; ")];
    }
    kept
}

/// Whether a field may stand in trailers: none that frames, routes or authorises, and none of the mesh's.
fn may_trail(name: &str) -> bool {
    let of_head = [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "te",
        "trailer",
        "upgrade",
        "authorization",
        "content-type",
        "content-encoding",
        "set-cookie",
    ];
    !of_head.contains(&name) && !is_of_mesh(&name.replace('_', "-"))
}

/// Values by the names of their fields, in order.
type Fields<'a> = BTreeMap<&'a str, Vec<String>>;

fn by_name(fields: &[Field], is_wanted: impl Fn(&str) -> bool) -> Fields<'_> {
    let mut found = Fields::new();
    for (name, value) in fields.iter().filter(|(name, _)| is_wanted(name)) {
        found.entry(&**name).or_default().push(value.escape_ascii().to_string());
    }
    found
}
