//! What rules ask of a request or connection.

use std::{
    borrow::Cow,
    cell::OnceCell,
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use http::{HeaderMap, request};
use maesh_http2::Protocol;
use smallvec::SmallVec;

use crate::host::Host;

/// Parameters of the query, and cookies, that rules see: the first ones. No caller shall make a request dear by many.
const MOST: usize = 256;

/// A request or connection, as rules see it.
pub(crate) struct RouteFacts<'a> {
    /// `Host` as it was sent.
    pub(crate) sent_host: Option<&'a [u8]>,
    /// The path as it was sent.
    pub(crate) sent_path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) method: &'a str,
    pub(crate) fields: &'a HeaderMap,
    pub(crate) caller: IpAddr,
    /// A field that stands there several times has to fit line by line and as one: servers differ in what they take.
    pub(crate) every_line: bool,
    /// What was read of these, once somebody asked.
    pub(crate) read: ReadFacts<'a>,
}

/// What was read of a request, once for all rules.
#[derive(Default)]
pub(crate) struct ReadFacts<'a> {
    host: OnceCell<Option<Host<'a>>>,
    path: OnceCell<Cow<'a, str>>,
    query: OnceCell<Pairs<'a>>,
    cookies: OnceCell<Pairs<'a>>,
}

/// The method of a request. A WebSocket that is asked for by extended CONNECT (RFC 8441) is the GET that it is in HTTP/1.1.
pub(crate) fn method(head: &request::Parts) -> &str {
    if head.extensions.get::<Protocol>().is_some() { "GET" } else { head.method.as_str() }
}

/// Names with values, sorted.
pub(super) type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Of a connection.
static NO_FIELDS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

impl<'a> RouteFacts<'a> {
    /// A connection or flow of `caller`, whose server name of TLS is `host` if it said any.
    pub(crate) fn of_connection(host: &'a str, caller: IpAddr) -> Self {
        let read = ReadFacts { host: OnceCell::from(Some(Host::normalised(host))), ..ReadFacts::default() };
        Self {
            sent_host: None,
            sent_path: "",
            query: None,
            method: "",
            fields: &NO_FIELDS,
            caller,
            every_line: false,
            read,
        }
    }

    /// A request of which `path` is what rules see of its path. Whatever else may be seen of it in several ways has to fit in
    /// each of them.
    pub(crate) fn of_request(sent_host: Option<&'a [u8]>, path: Cow<'a, str>, head: &'a request::Parts) -> Self {
        let read = ReadFacts { path: OnceCell::from(path), ..ReadFacts::default() };
        let caller = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (method, fields) = (method(head), &head.headers);
        Self { sent_host, sent_path: "", query: None, method, fields, caller, every_line: true, read }
    }

    /// The host in small letters without port, or the server name of TLS; empty if there is none.
    pub(super) fn host(&self) -> &str {
        let host = self.read.host.get_or_init(|| self.sent_host.and_then(Host::parse));
        host.as_ref().map_or("", Host::as_str)
    }

    /// The path as rules see it; see [`decoded`].
    pub(super) fn path(&self) -> &str {
        self.read.path.get_or_init(|| decoded(self.sent_path))
    }

    /// The first parameters of the query, decoded as forms encode them.
    pub(super) fn query(&self) -> &Pairs<'a> {
        self.read.query.get_or_init(|| {
            let query: &'a str = self.query.unwrap_or_default();
            sorted(form_urlencoded::parse(query.as_bytes()))
        })
    }

    /// The first cookies (RFC 6265 section 4.2.1).
    pub(super) fn cookies(&self) -> &Pairs<'a> {
        self.read.cookies.get_or_init(|| {
            let fields = self.fields.get_all(http::header::COOKIE).into_iter();
            sorted(fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';')).filter_map(cookie))
        })
    }

    /// Whether a field of this name has this value.
    pub(super) fn has_field(&self, name: &str, wanted: &str) -> bool {
        self.finds_field(name, |value| value == wanted)
    }

    /// Whether a field of this name has a value that `is` accepts.
    pub(super) fn finds_field(&self, name: &str, is: impl Fn(&str) -> bool) -> bool {
        let mut lines = self.fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        if !self.every_line {
            return lines.any(|line| is(&line));
        }
        let lines: SmallVec<[Cow<'_, str>; 2]> = lines.collect();
        !lines.is_empty() && lines.iter().all(|line| is(line)) && (lines.len() == 1 || is(&lines.join(", ")))
    }
}

fn sorted<'a>(pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Pairs<'a> {
    let mut pairs: Pairs<'a> = pairs.take(MOST).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Whether there is this pair.
pub(super) fn has_pair(pairs: &Pairs<'_>, name: &str, wanted: &str) -> bool {
    pairs.binary_search_by(|(of, value)| (&**of, &**value).cmp(&(name, wanted))).is_ok()
}

/// Whether there is a value of this name that `is` accepts.
pub(super) fn finds_pair(pairs: &Pairs<'_>, name: &str, is: impl Fn(&str) -> bool) -> bool {
    let from = pairs.partition_point(|(of, _)| &**of < name);
    pairs[from..].iter().take_while(|(of, _)| of == name).any(|(_, value)| is(value))
}

/// Name and value of one cookie. Quotes around a value are none of it, as most servers read it.
fn cookie(pair: &[u8]) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let pair = pair.trim_ascii();
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let value = &pair[at + 1..];
    let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    Some((String::from_utf8_lossy(&pair[..at]), String::from_utf8_lossy(bare)))
}

/// A path as rules see it: what is percent-encoded without need is decoded, as no endpoint tells the two apart. Reserved
/// characters, `%` itself and what is no UTF-8 stay as they are.
pub(crate) fn decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let (bytes, mut out, mut at) = (path.as_bytes(), Vec::with_capacity(path.len()), 0);
    while at < bytes.len() {
        let meant = if bytes[at] == b'%' { bytes.get(at + 1..at + 3).and_then(byte_of) } else { None };
        match meant {
            Some(byte) if is_free(byte) => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or_else(|_| path.into(), Cow::from)
}

fn byte_of(digits: &[u8]) -> Option<u8> {
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Whether a byte means the same encoded and not (RFC 3986 section 2.3), or cannot stand in a path as it is.
fn is_free(byte: u8) -> bool {
    let is_always_encoded =
        matches!(byte, b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}') || byte >= 0x80;
    is_always_encoded || byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_where_that_changes_nothing() {
        for (sent, seen) in [
            ("/a/b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/%2fadmin", "/%2fadmin"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%C3%A4", "/ä"),
            ("/%ff", "/%ff"),
            ("/%25x", "/%25x"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%+1", "/%+1"),
            ("/a%20b", "/a b"),
            ("/a=%3Eb", "/a=>b"),
            ("/%5c%5B", "/%5c%5B"),
            ("/%2e%2E/x", "/../x"),
        ] {
            assert_eq!(decoded(sent), seen, "{sent}");
        }
    }
}
