//! What a proxy must change in heads: fields that belong to one connection, and those that say who called.
//!
//! `X-Forwarded-*` and `X-Real-Ip` are set, never believed: a pod can write what it likes. Callers in the list of
//! trusted hops are the exception; theirs are kept and appended to.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::fields::{AddedFields, Present, Sought};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Who called, for the `X-Forwarded-*` fields.
pub(crate) struct Forwarded<'a> {
    pub(crate) caller: &'a HeaderValue,
    pub(crate) trusted: bool,
    pub(crate) websocket: bool,
    pub(crate) host: Option<&'a HeaderValue>,
    pub(crate) port: &'a HeaderValue,
}

/// Adds the `X-Forwarded-*` fields, and removes those of the caller and `Forwarded`.
pub(crate) fn forward(headers: &mut HeaderMap, present: Present, from: &Forwarded<'_>, added: &mut AddedFields) {
    if present.has(Sought::Underscore) {
        remove_lookalikes(headers);
    }
    let proto = HeaderValue::from_static(if from.websocket { "ws" } else { "http" });
    let has_some = present.has(Sought::Mesh);
    let list = if from.trusted && has_some { list(headers, from.caller) } else { from.caller.clone() };
    let is_kept = |name: &HeaderName| from.trusted && has_some && headers.contains_key(name);
    let ours = [
        (&X_FORWARDED_PROTO, Some(&proto)),
        (&X_FORWARDED_PORT, Some(from.port)),
        (&X_REAL_IP, Some(from.caller)),
        (&X_FORWARDED_HOST, from.host),
    ];
    for (name, value) in ours {
        if let Some(value) = value.filter(|_| !is_kept(name)) {
            added.push((name, value.clone()));
        }
    }
    added.push((&X_FORWARDED_FOR, list));
    if !has_some {
        return;
    }
    headers.remove(&X_FORWARDED_FOR);
    if !from.trusted {
        for name in [&X_FORWARDED_PROTO, &X_FORWARDED_PORT, &X_FORWARDED_HOST, &X_REAL_IP, &header::FORWARDED] {
            headers.remove(name);
        }
    }
}

/// Removes fields whose names are those that the mesh sets but for underscores: CGI and WSGI cannot tell them apart.
fn remove_lookalikes(headers: &mut HeaderMap) {
    let is_lookalike = |name: &&HeaderName| {
        let name = name.as_str();
        name.contains('_') && is_of_mesh(&name.replace('_', "-"))
    };
    let found: SmallVec<[HeaderName; 4]> = headers.keys().filter(is_lookalike).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Whether the mesh sets or removes the field of this name.
fn is_of_mesh(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name.starts_with("x-maesh-") || name == "x-real-ip" || name == "forwarded"
}

/// Removes from a request's trailers what the mesh sets, and what belongs to one connection: an endpoint may merge them into
/// the fields of the head.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    let is_unwanted = |name: &&HeaderName| {
        let belongs_to_head = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];
        belongs_to_head.contains(name) || is_of_mesh(&name.as_str().replace('_', "-"))
    };
    let found: SmallVec<[HeaderName; 4]> = trailers.keys().filter(is_unwanted).cloned().collect();
    for name in found {
        trailers.remove(name);
    }
}

/// Makes one `Cookie` of several: HTTP/2 may split it, HTTP/1.1 may not (RFC 9113 section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    // An empty one holds no pair, and would leave a separator with nothing before or after it.
    let filled = |value: &&[u8]| !value.is_empty();
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).filter(filled).collect();
    // Valid values, joined by characters that a value may have, are a valid value.
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The list that a trusted hop sent, with the caller at its end.
fn list(headers: &HeaderMap, caller: &HeaderValue) -> HeaderValue {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&X_FORWARDED_FOR).iter().chain([caller]) {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&list).unwrap_or_else(|_| caller.clone())
}

/// Removes what belongs to one connection (RFC 9110 section 7.6.1), and whatever `Connection` names.
///
/// `Transfer-Encoding` goes too: the next connection frames the body anew. `TE: trailers` stays where `keep_te` is
/// set, because gRPC asks for it.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, keep_te: bool) {
    // One pass over what is there, instead of a look-up for each of these names.
    let (mut connection, mut others, mut te) = (false, SmallVec::<[HeaderName; 4]>::new(), false);
    for name in headers.keys() {
        match *name {
            header::CONNECTION => connection = true,
            header::TE => te = true,
            header::TRANSFER_ENCODING | header::UPGRADE | header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => {
                others.push(name.clone());
            }
            _ if matches!(name.as_str().len(), 10 | 14 | 16)
                && (*name == KEEP_ALIVE || *name == PROXY_CONNECTION || *name == HTTP2_SETTINGS) =>
            {
                others.push(name.clone());
            }
            _ => {}
        }
    }
    for name in others {
        headers.remove(name);
    }
    if te && !(keep_te && headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"))) {
        headers.remove(header::TE);
    }
    if connection {
        strip_named(headers);
    }
}

/// Removes the fields that `Connection` names, and itself. What routes and frames a message cannot be named away.
fn strip_named(headers: &mut HeaderMap) {
    let mut named = SmallVec::<[HeaderName; 4]>::new();
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            // These two are no names of fields that are still there.
            if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(token) {
                named.push(name);
            }
        }
    }
    headers.remove(header::CONNECTION);
    for name in named {
        let ours = [header::HOST, header::CONTENT_LENGTH, header::TE].contains(&name) || is_of_mesh(name.as_str());
        if !ours {
            headers.remove(name);
        }
    }
}

/// Whether a field holds `token` in a list of words.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut words = value.as_bytes().split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        for (case, before, keep_te, after) in [
            ("nothing to do", &[("accept", "*/*")][..], false, &[("accept", "*/*")][..]),
            (
                "the usual ones",
                &[
                    ("connection", "keep-alive"),
                    ("keep-alive", "timeout=5"),
                    ("transfer-encoding", "chunked"),
                    ("a", "b"),
                ],
                false,
                &[("a", "b")],
            ),
            ("named ones", &[("connection", "close, X-Secret"), ("x-secret", "1"), ("a", "b")], false, &[("a", "b")]),
            ("two lines", &[("connection", "x-a"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "1")], false, &[]),
            ("host cannot be named away", &[("connection", "host"), ("host", "web")], false, &[("host", "web")]),
            ("te for grpc", &[("te", "trailers")], true, &[("te", "trailers")]),
            ("te otherwise", &[("te", "trailers")], false, &[]),
            ("te with more", &[("te", "gzip, trailers")], true, &[]),
            ("trailer stays", &[("trailer", "x-sum")], false, &[("trailer", "x-sum")]),
        ] {
            let mut headers = map(before);
            strip_hop_by_hop(&mut headers, keep_te);
            assert_eq!(headers, map(after), "{case}");
        }
    }

    /// The fields as they leave.
    fn forwarded(mut headers: HeaderMap, from: &Forwarded<'_>) -> HeaderMap {
        let (present, mut added) = (Present::of(&headers), AddedFields::new());
        forward(&mut headers, present, from, &mut added);
        for (name, value) in added {
            assert!(headers.insert(name, value).is_none(), "{name} twice");
        }
        headers
    }

    #[test]
    fn who_called_is_set_and_not_believed() {
        let (caller, host, port) = (
            HeaderValue::from_static("10.0.0.7"),
            HeaderValue::from_static("Web.shop:80"),
            HeaderValue::from_static("80"),
        );
        let claimed = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
        ];
        let from =
            |trusted, websocket| Forwarded { caller: &caller, trusted, websocket, host: Some(&host), port: &port };
        let headers = forwarded(map(&claimed), &from(false, false));
        let want = [
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "Web.shop:80"),
            ("x-forwarded-port", "80"),
            ("x-real-ip", "10.0.0.7"),
        ];
        assert_eq!(headers, map(&want));
        let headers = forwarded(map(&claimed), &from(true, false));
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.0.0.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], "for=1.1.1.1");
        let headers = forwarded(map(&[]), &from(false, true));
        assert_eq!(headers["x-forwarded-proto"], "ws");
    }

    #[test]
    fn fields_that_look_like_those_of_the_mesh_are_removed() {
        let (caller, port) = (HeaderValue::from_static("10.0.0.7"), HeaderValue::from_static("80"));
        for trusted in [false, true] {
            let from = Forwarded { caller: &caller, trusted, websocket: false, host: None, port: &port };
            let headers = map(&[
                ("x_forwarded_for", "1.1.1.1"),
                ("x-forwarded_for", "1.1.1.1"),
                ("x_real_ip", "1.1.1.1"),
                ("x_maesh_reason", "1"),
                ("my_field", "kept"),
            ]);
            let headers = forwarded(headers, &from);
            let with_underscore: Vec<&str> =
                headers.keys().map(HeaderName::as_str).filter(|n| n.contains('_')).collect();
            assert_eq!(with_underscore, ["my_field"], "trusted: {trusted}");
        }
    }

    #[test]
    fn trailers_are_not_a_way_around() {
        let mut trailers =
            map(&[("x-forwarded-for", "1.1.1.1"), ("x_real_ip", "1.1.1.1"), ("host", "evil"), ("x-sum", "1")]);
        clean_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("x-sum", "1")]));
    }

    #[test]
    fn several_cookies_become_one() {
        for (case, before, after) in [
            ("none", &[][..], &[][..]),
            ("one", &[("cookie", "a=1")], &[("cookie", "a=1")]),
            ("several", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")], &[("cookie", "a=1; b=2; c=3")]),
            ("an empty one among them", &[("cookie", ""), ("cookie", "a=1"), ("cookie", "")], &[("cookie", "a=1")]),
            ("nothing but empty ones", &[("cookie", ""), ("cookie", "")], &[("cookie", "")]),
        ] {
            let mut headers = map(before);
            join_cookies(&mut headers);
            assert_eq!(headers, map(after), "{case}");
        }
    }
}
