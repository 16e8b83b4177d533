//! The requests. Each that hides another one hides `GET /smuggled`.

/// One request, and how many the endpoint is to see of it.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) sent: Sent,
    pub(super) requests: usize,
}

/// Names and values.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What a caller sends.
pub(super) enum Sent {
    /// These bytes.
    Http1(Vec<u8>),
    /// HEADERS, DATA and trailers on one stream.
    Http2 { fields: Fields, body: Option<Vec<u8>>, trailers: Fields },
}

/// The mesh name of the Service.
pub(super) const HOST: &str = "web.shop.maesh";
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: web.shop.maesh\r\n\r\n";

/// Fields of a POST with a body: their text, the body, and the requests at the endpoint.
const POSTS: &[(&str, &str, &str, usize)] = &[
    ("a length", "Content-Length: 3\r\n", "abc", 1),
    ("chunks", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", 1),
    // Two lengths: the chunks count, and the connection ends.
    ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG", 1),
    ("CL.TE and a hidden one", "Content-Length: 53\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n@", 1),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "30\r\n@\r\n0\r\n\r\n", 1),
    ("TE.TE, another coding", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n@", 0),
    ("TE.TE, twice chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n@", 0),
    ("`chunked, chunked`", "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n@", 0),
    ("`gzip, chunked`", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n@", 0),
    ("`chunked, gzip`", "Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n@", 0),
    ("`xchunked`", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n@", 0),
    ("`identity`", "Transfer-Encoding: identity\r\nContent-Length: 3\r\n", "abc", 0),
    ("a coding in quotes", "Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n@", 0),
    ("a coding with a parameter", "Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n@", 0),
    ("no coding", "Transfer-Encoding: \r\n", "0\r\n\r\n@", 0),
    ("a coding behind a vertical tab", "Transfer-Encoding:\u{b}chunked\r\n", "0\r\n\r\n@", 0),
    ("a coding before NUL", "Transfer-Encoding: chunked\0\r\n", "0\r\n\r\n@", 0),
    ("a coding in upper case", "Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n", 1),
    ("a coding behind a tab", "Transfer-Encoding:\tchunked\r\n", "0\r\n\r\n", 1),
    ("a space before the colon", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n@", 0),
    ("obs-fold before the coding", "Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n@", 0),
    ("a field that begins with a space", " Transfer-Encoding: chunked\r\n", "0\r\n\r\n@", 0),
    ("a coding behind a bare CR", "X: x\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n@", 0),
    ("a coding behind a bare LF", "X: x\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 1),
    ("Transfer_Encoding", "Transfer_Encoding: chunked\r\nContent-Length: 3\r\n", "abc", 1),
    (
        "Connection: transfer-encoding",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        1,
    ),
    ("Connection: content-length", "Connection: content-length\r\nContent-Length: 3\r\n", "abc", 1),
    ("two lengths", "Content-Length: 3\r\nContent-Length: 4\r\n", "abcd", 0),
    ("the same length twice", "Content-Length: 3\r\nContent-Length: 3\r\n", "abc", 1),
    ("a list of lengths", "Content-Length: 3, 3\r\n", "abc", 0),
    ("length `+3`", "Content-Length: +3\r\n", "abc", 0),
    ("length `-3`", "Content-Length: -3\r\n", "abc", 0),
    ("length `0x3`", "Content-Length: 0x3\r\n", "abc", 0),
    ("length `3 3`", "Content-Length: 3 3\r\n", "abc", 0),
    ("length `3.0`", "Content-Length: 3.0\r\n", "abc", 0),
    ("no number for a length", "Content-Length: \r\n", "abc", 0),
    ("a length above 64 bits", "Content-Length: 18446744073709551619\r\n", "abc", 0),
    ("a length with zeros before it", "Content-Length: 0003\r\n", "abc", 1),
    ("obs-fold before the length", "Content-Length:\r\n 3\r\n", "abc", 0),
    ("a space before the colon of the length", "Content-Length : 3\r\n", "abc", 0),
    ("an extension of a chunk", "Transfer-Encoding: chunked\r\n", "3;a=b\r\nabc\r\n0\r\n\r\n", 1),
    ("an extension that ends with a bare LF", "Transfer-Encoding: chunked\r\n", "3;\nabc\r\n0\r\n\r\n@", 0),
    ("an extension with a bare CR", "Transfer-Encoding: chunked\r\n", "3;a\rb\r\nabc\r\n0\r\n\r\n@", 0),
    ("chunks that end with bare LFs", "Transfer-Encoding: chunked\r\n", "3\nabc\n0\n\n@", 0),
    ("the size of a chunk as `0x3`", "Transfer-Encoding: chunked\r\n", "0x3\r\nabc\r\n0\r\n\r\n@", 0),
    ("a space before the size of a chunk", "Transfer-Encoding: chunked\r\n", " 3\r\nabc\r\n0\r\n\r\n@", 0),
    ("the size of a chunk as `-3`", "Transfer-Encoding: chunked\r\n", "-3\r\nabc\r\n0\r\n\r\n@", 0),
    ("the size of a chunk as `3_0`", "Transfer-Encoding: chunked\r\n", "3_0\r\nabc\r\n0\r\n\r\n@", 0),
    ("no size of a chunk", "Transfer-Encoding: chunked\r\n", "\r\nabc\r\n0\r\n\r\n@", 0),
    (
        "the size of a chunk above 64 bits",
        "Transfer-Encoding: chunked\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n@",
        0,
    ),
    ("a chunk longer than its size", "Transfer-Encoding: chunked\r\n", "3\r\nabcX\r\n0\r\n\r\n@", 0),
    ("a chunk without its end", "Transfer-Encoding: chunked\r\n", "3\r\nabc0\r\n\r\n@", 0),
    ("a trailer", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", 1),
    ("a length as a trailer", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", 1),
    ("trailers that end with bare LFs", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\nX: y\n\n@", 0),
    ("obs-fold in trailers", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n@", 0),
    ("obs-fold", "X: y\r\n z\r\nContent-Length: 0\r\n", "@", 0),
    ("no colon", "Xyz\r\nContent-Length: 0\r\n", "@", 0),
    ("no name", ": a\r\nContent-Length: 0\r\n", "@", 0),
    ("a space in a name", "X y: a\r\nContent-Length: 0\r\n", "@", 0),
    ("NUL in a name", "X\0: a\r\nContent-Length: 0\r\n", "@", 0),
    ("NUL in a value", "X: a\0b\r\nContent-Length: 0\r\n", "@", 0),
    ("a bare CR in a value", "X: a\rb\r\nContent-Length: 0\r\n", "@", 0),
    ("a second Host", "Host: other.shop.maesh\r\nContent-Length: 0\r\n", "@", 0),
];

/// Whole requests.
const REQUESTS: &[(&str, &str, usize)] = &[
    ("HTTP/1.0 and chunks", "POST / HTTP/1.0\r\n#Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n@", 0),
    ("HTTP/0.9", "GET /\r\n\r\n@", 0),
    ("HTTP/1.2", "GET / HTTP/1.2\r\n#\r\n@", 0),
    ("two spaces in the first line", "GET  / HTTP/1.1\r\n#\r\n@", 0),
    ("tabs in the first line", "GET\t/\tHTTP/1.1\r\n#\r\n@", 0),
    ("a space after the version", "GET / HTTP/1.1 \r\n#\r\n@", 0),
    ("a space before the method", " GET / HTTP/1.1\r\n#\r\n@", 0),
    ("an empty line before it", "\r\nGET / HTTP/1.1\r\n#\r\n", 1),
    ("bare LFs only", "GET / HTTP/1.1\nHost: web.shop.maesh\n\n", 1),
    ("no Host", "GET / HTTP/1.1\r\n\r\n@", 0),
    ("NUL in the target", "GET /\0 HTTP/1.1\r\n#\r\n@", 0),
    ("an absolute target", "GET http://web.shop.maesh/ HTTP/1.1\r\n#\r\n", 1),
    ("GET with a body", "GET / HTTP/1.1\r\n#Content-Length: 48\r\n\r\n@", 1),
    ("HEAD with a body", "HEAD / HTTP/1.1\r\n#Content-Length: 48\r\n\r\n@", 1),
    (
        "an Upgrade to h2c with a body",
        "GET / HTTP/1.1\r\n#Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 48\r\n\r\n@",
        1,
    ),
    ("a WebSocket with a body", "GET / HTTP/1.1\r\n#&Content-Length: 48\r\n\r\n@", 1),
    ("a WebSocket with chunks", "GET / HTTP/1.1\r\n#&Transfer-Encoding: chunked\r\n\r\n30\r\n@\r\n0\r\n\r\n", 1),
    ("a WebSocket by POST with a body", "POST / HTTP/1.1\r\n#&Content-Length: 48\r\n\r\n@", 1),
    ("a WebSocket with two lengths", "GET / HTTP/1.1\r\n#&Content-Length: 3\r\nContent-Length: 4\r\n\r\n@", 0),
    ("a WebSocket in HTTP/1.0 with a body", "GET / HTTP/1.0\r\n#&Content-Length: 48\r\n\r\n@", 1),
    (
        "an Upgrade to another protocol with a body",
        "GET / HTTP/1.1\r\n#Connection: Upgrade\r\nUpgrade: x/1\r\nContent-Length: 48\r\n\r\n@",
        1,
    ),
    (
        "an Upgrade with a space in it",
        "GET / HTTP/1.1\r\n#Connection: Upgrade\r\nUpgrade: x y\r\nContent-Length: 48\r\n\r\n@",
        0,
    ),
    (
        "an Upgrade that Connection does not name",
        "GET / HTTP/1.1\r\n#Upgrade: websocket\r\nContent-Length: 48\r\n\r\n@",
        1,
    ),
    ("CONNECT with a body", "CONNECT web.shop.maesh:80 HTTP/1.1\r\n#Content-Length: 48\r\n\r\n@", 0),
    ("Expect: 100-continue", "POST / HTTP/1.1\r\n#Expect: 100-continue\r\nContent-Length: 48\r\n\r\n@", 1),
    (
        "a body of 300 KiB that the endpoint answers early",
        "POST /early HTTP/1.1\r\n#Content-Length: 307200\r\n\r\n%",
        1,
    ),
    ("two requests, one behind the other", "GET /a HTTP/1.1\r\n#\r\nGET /b HTTP/1.1\r\n#\r\n", 2),
];

/// The fields of a handshake.
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// How often the hidden request is in a large body.
const REPEATED: usize = 300 * 1024 / HIDDEN.len();

/// Over HTTP/1.1. In the texts, `@` stands for the hidden request, `%` for many of them, `#` for the Host, and `&` for the
/// other fields of a WebSocket handshake.
pub(super) fn http1() -> Vec<Case> {
    let fill = |text: &str| {
        let text = text.replace('%', &"@".repeat(REPEATED)).replace('@', HIDDEN);
        text.replace('#', &format!("Host: {HOST}\r\n")).replace('&', HANDSHAKE).into_bytes()
    };
    let posts = POSTS.iter().map(|(name, fields, body, requests)| Case {
        name: (*name).to_owned(),
        sent: Sent::Http1(fill(&format!("POST / HTTP/1.1\r\n#{fields}\r\n{body}"))),
        requests: *requests,
    });
    let others = REQUESTS.iter().map(|(name, text, requests)| Case {
        name: (*name).to_owned(),
        sent: Sent::Http1(fill(text)),
        requests: *requests,
    });
    posts.chain(others).collect()
}

/// A field that replaces the one of its name, or is appended; what follows it: a body, a trailer; and the requests.
type Row = (&'static str, (&'static str, &'static str), &'static str, (&'static str, &'static str), usize);

const NONE: (&str, &str) = ("", "");

const STREAMS: &[Row] = &[
    ("nothing special", ("x-a", "b"), "", NONE, 1),
    ("a body without a length", ("x-a", "b"), "@", NONE, 1),
    ("H2.CL: length 0", ("content-length", "0"), "@", NONE, 0),
    ("H2.CL: too small a length", ("content-length", "3"), "abc@", NONE, 0),
    ("H2.CL: too large a length", ("content-length", "99"), "abc", NONE, 0),
    ("H2.CL: a list of lengths", ("content-length", "3, 3"), "abc", NONE, 0),
    ("H2.CL: length `+3`", ("content-length", "+3"), "abc", NONE, 0),
    ("H2.CL: length `0x3`", ("content-length", "0x3"), "abc", NONE, 0),
    ("H2.TE", ("transfer-encoding", "chunked"), "0\r\n\r\n@", NONE, 0),
    ("H2.TE: a name in upper case", ("Transfer-Encoding", "chunked"), "0\r\n\r\n@", NONE, 0),
    ("H2.TE: a space in the name", ("transfer-encoding ", "chunked"), "0\r\n\r\n@", NONE, 0),
    ("transfer_encoding", ("transfer_encoding", "chunked"), "abc", NONE, 1),
    ("Connection", ("connection", "x-a"), "", NONE, 0),
    ("Keep-Alive", ("keep-alive", "1"), "", NONE, 0),
    ("Proxy-Connection", ("proxy-connection", "close"), "", NONE, 0),
    ("Upgrade", ("upgrade", "h2c"), "", NONE, 0),
    ("TE with more than trailers", ("te", "trailers, chunked"), "", NONE, 0),
    ("CR LF in a value", ("x-a", "b\r\nTransfer-Encoding: chunked"), "0\r\n\r\n@", NONE, 0),
    ("LF in a value", ("x-a", "b\nTransfer-Encoding: chunked"), "0\r\n\r\n@", NONE, 0),
    ("CR in a value", ("x-a", "b\rc"), "", NONE, 0),
    ("NUL in a value", ("x-a", "b\0c"), "", NONE, 0),
    ("CR LF in a name", ("x-a: b\r\nx-c", "d"), "", NONE, 0),
    ("a colon in a name", ("x-a: b", "d"), "", NONE, 0),
    ("no name", ("", "b"), "", NONE, 0),
    ("CR LF in the method", (":method", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"), "", NONE, 0),
    ("a space in the method", (":method", "GET /smuggled"), "", NONE, 0),
    ("CR LF in the path", (":path", "/ HTTP/1.1\r\nx: y\r\n\r\nGET /smuggled"), "", NONE, 0),
    ("a space in the path", (":path", "/ HTTP/1.1"), "", NONE, 0),
    ("a path without a slash", (":path", "smuggled"), "", NONE, 0),
    ("a whole URL as the path", (":path", "http://other/smuggled"), "", NONE, 0),
    ("`*` as the path", (":path", "*"), "", NONE, 0),
    ("CR LF in the authority", (":authority", "web.shop.maesh\r\nx: y"), "", NONE, 0),
    ("a path in the authority", (":authority", "web.shop.maesh/smuggled"), "", NONE, 0),
    ("a user in the authority", (":authority", "user@web.shop.maesh"), "", NONE, 0),
    ("a URL as the scheme", (":scheme", "http://other/?"), "", NONE, 0),
    ("CR LF in the scheme", (":scheme", "http\r\nx: y"), "", NONE, 0),
    // The authority is what counts, and the only one that is passed on.
    ("another Host than the authority", ("host", "other.shop.maesh"), "", NONE, 1),
    ("a trailer", ("x-a", "b"), "abc", ("x-t", "1"), 1),
    ("a length as a trailer", ("x-a", "b"), "abc", ("content-length", "99"), 1),
    ("a Host as a trailer", ("x-a", "b"), "abc", ("host", "other.shop.maesh"), 1),
    ("a coding as a trailer", ("x-a", "b"), "abc", ("transfer-encoding", "chunked"), 0),
    ("CR LF in a trailer", ("x-a", "b"), "abc", ("x-t", "1\r\n\r\nGET /smuggled HTTP/1.1"), 0),
    ("CR LF in the protocol of a CONNECT", (":protocol", "websocket\r\nx: y"), "", NONE, 0),
    // The endpoint answers as if it were a usual request.
    ("a WebSocket, a hidden request on it, and no agreement", (":protocol", "websocket"), "@", NONE, 1),
    ("CONNECT to another protocol", (":protocol", "x"), "@", NONE, 0),
];

/// Over HTTP/2.
pub(super) fn http2() -> Vec<Case> {
    STREAMS.iter().map(stream).collect()
}

/// A usual request, as a stream.
pub(super) fn stream_of(target: &str) -> Sent {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", target)];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    Sent::Http2 { fields: fields.to_vec(), body: None, trailers: Vec::new() }
}

fn stream((name, field, body, trailer, requests): &Row) -> Case {
    let bytes = |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let method = match (field.0, *body) {
        (":protocol", _) => "CONNECT",
        (_, "") => "GET",
        _ => "POST",
    };
    let mut fields = vec![(":method", method), (":scheme", "http"), (":authority", HOST), (":path", "/")];
    match fields.iter_mut().find(|have| have.0 == field.0) {
        Some(have) => *have = *field,
        // Pseudo-fields come before all others.
        None if field.0.starts_with(':') => fields.insert(0, *field),
        None => fields.push(*field),
    }
    Case {
        name: (*name).to_owned(),
        sent: Sent::Http2 {
            fields: fields.iter().map(bytes).collect(),
            body: (!body.is_empty()).then(|| body.replace('@', HIDDEN).into_bytes()),
            trailers: if trailer.0.is_empty() { Vec::new() } else { vec![bytes(trailer)] },
        },
        requests: *requests,
    }
}
