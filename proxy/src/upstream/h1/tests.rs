use crate::fields::AddedFields;
use bytes::BytesMut;
use http::{HeaderValue, Method, Request, header};
use proptest::prelude::*;

use super::{
    chunked::{self, DecodedPiece},
    head::{self, ResponseFraming, ResponseLimits},
    pieces::{Response, read_response},
    request,
};
use crate::upstream::ProtocolError;

const LIMITS: ResponseLimits = ResponseLimits { bytes: 4096, fields: 100 };

fn parsed(text: &str, method: &Method) -> Result<Option<head::ResponseHead>, ProtocolError> {
    head::parse(&mut BytesMut::from(text), &LIMITS, method)
}

#[test]
fn how_a_response_is_framed() {
    use ResponseFraming::{Chunked, Close, Empty, Length};
    let get = Method::GET;
    let head = Method::HEAD;
    for (case, text, method, framing, keep_alive, length) in [
        ("a length", "200 OK\r\nContent-Length: 5\r\n", &get, Length(5), true, Some("5")),
        ("no body", "200 OK\r\nContent-Length: 0\r\n", &get, Empty, true, Some("0")),
        ("chunks", "200 OK\r\nTransfer-Encoding: chunked\r\n", &get, Chunked, true, None),
        ("chunks in capitals", "200 OK\r\nTransfer-Encoding: CHUNKED\r\n", &get, Chunked, true, None),
        ("neither", "200 OK\r\nServer: x\r\n", &get, Close, false, None),
        ("both", "200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n", &get, Chunked, false, None),
        ("a length twice", "200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n", &get, Length(5), true, Some("5")),
        ("a length twice in a line", "200 OK\r\nContent-Length: 5, 5\r\n", &get, Length(5), true, Some("5")),
        ("a length with zeros", "200 OK\r\nContent-Length: 005\r\n", &get, Length(5), true, Some("5")),
        ("204 with a length", "204 No Content\r\nContent-Length: 5\r\n", &get, Empty, true, None),
        ("204", "204 No Content\r\n", &get, Empty, true, None),
        ("304 with a length", "304 Not Modified\r\nContent-Length: 5\r\n", &get, Empty, true, Some("5")),
        ("HEAD with a length", "200 OK\r\nContent-Length: 5\r\n", &head, Empty, true, Some("5")),
        ("HEAD with chunks", "200 OK\r\nTransfer-Encoding: chunked\r\n", &head, Empty, true, None),
        ("HEAD without either", "200 OK\r\nServer: x\r\n", &head, Empty, false, None),
        ("close", "200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n", &get, Length(5), false, Some("5")),
    ] {
        let head = parsed(&format!("HTTP/1.1 {text}\r\n"), method).expect(case).expect(case);
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{case}");
        let got = head.parts.headers.get_all(header::CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
        assert!(got.eq(length.map(str::as_bytes)), "{case}");
        assert!(!head.parts.headers.contains_key(header::TRANSFER_ENCODING), "{case}");
    }
    for (connection, keep_alive) in [("", false), ("Connection: keep-alive\r\n", true)] {
        let text = format!("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n{connection}\r\n");
        assert_eq!(parsed(&text, &get).expect("valid").expect("complete").keep_alive, keep_alive, "1.0 {connection}");
    }
}

#[test]
fn what_is_no_response() {
    use ProtocolError::{ContentLength, Head, HeadTooLarge, TooManyFields, TransferCoding};
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(5000));
    let unfinished = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(5000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
    let just = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(100));
    for (case, text, want) in [
        ("another protocol", "SSH-2.0-OpenSSH\r\n", Some(Head)),
        ("HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", Some(Head)),
        ("a folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Some(Head)),
        ("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", Some(Head)),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Some(ContentLength)),
        ("two lengths in a line", "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", Some(ContentLength)),
        ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", Some(ContentLength)),
        ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", Some(ContentLength)),
        ("an empty length", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", Some(ContentLength)),
        ("a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n", Some(ContentLength)),
        (
            "a length beyond 64 bits",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            Some(ContentLength),
        ),
        ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Some(TransferCoding)),
        ("two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Some(TransferCoding)),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some(TransferCoding),
        ),
        ("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Some(TransferCoding)),
        ("a large head", &large, Some(HeadTooLarge)),
        ("a head without end", &unfinished, Some(HeadTooLarge)),
        ("many fields", &many, Some(TooManyFields)),
        ("just as many as allowed", &just, None),
    ] {
        assert_eq!(parsed(text, &Method::GET).err(), want, "{case}");
    }
}

fn decoded(text: &[u8]) -> Result<(Vec<u8>, usize, usize), Option<ProtocolError>> {
    let (mut decoder, mut buffer) = (chunked::ChunkedDecoder::new(), BytesMut::from(text));
    let (mut body, mut trailers) = (Vec::new(), 0);
    loop {
        match decoder.next(&mut buffer).map_err(Some)? {
            DecodedPiece::Data(data) => body.extend_from_slice(&data),
            DecodedPiece::Trailers(fields) => trailers = fields.len(),
            DecodedPiece::End => return Ok((body, trailers, buffer.len())),
            DecodedPiece::More => return Err(None),
        }
    }
}

#[test]
fn chunks() {
    use ProtocolError::{Chunk, ChunkExtensions, Trailers};
    let extensions = format!("1;{}\r\na\r\n", "x".repeat(8 * 1024)).repeat(3) + "0\r\n\r\n";
    let extension = format!("1;{}", "x".repeat(17 * 1024));
    let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(129));
    for (case, text, want) in [
        ("two", "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", Ok(("hello", 0, 0))),
        ("none", "0\r\n\r\n", Ok(("", 0, 0))),
        ("an extension", "5 ;a=b\r\nhello\r\n0;c\r\n\r\n", Ok(("hello", 0, 0))),
        ("leading zeros", "005\r\nhello\r\n00\r\n\r\n", Ok(("hello", 0, 0))),
        ("capitals", "A\r\n0123456789\r\n0\r\n\r\n", Ok(("0123456789", 0, 0))),
        ("trailers", "1\r\na\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n", Ok(("a", 2, 0))),
        ("a trailer that would frame", "1\r\na\r\n0\r\nContent-Length: 9\r\n\r\n", Ok(("a", 0, 0))),
        ("another message after it", "0\r\n\r\nHTTP/1.1 200 OK", Ok(("", 0, 15))),
        ("no size", "\r\nhello", Err(Some(Chunk))),
        ("no digit", "xyz\r\n", Err(Some(Chunk))),
        ("a prefix", "0x5\r\nhello\r\n", Err(Some(Chunk))),
        ("a sign", "+5\r\nhello\r\n", Err(Some(Chunk))),
        ("a size beyond 64 bits", "10000000000000000\r\n", Err(Some(Chunk))),
        ("a bare LF after the size", "5\nhello\r\n", Err(Some(Chunk))),
        ("a bare CR in an extension", "5;a\rb\r\nhello\r\n", Err(Some(Chunk))),
        ("more data than its size", "3\r\nhello\r\n0\r\n\r\n", Err(Some(Chunk))),
        ("a bare LF after the data", "5\r\nhello\n0\r\n\r\n", Err(Some(Chunk))),
        ("a folded trailer", "0\r\nX: a\r\n b\r\n\r\n", Err(Some(Trailers))),
        ("many trailers", &trailers, Err(Some(Trailers))),
        ("many bytes of extensions", &extensions, Err(Some(ChunkExtensions))),
        ("an extension without end", &extension, Err(Some(ChunkExtensions))),
        ("the end is missing", "5\r\nhello\r\n", Err(None)),
        ("the last line is missing", "5\r\nhello\r\n0\r\n", Err(None)),
    ] {
        let want = want.map(|(body, trailers, left): (&str, _, _)| (body.as_bytes().to_vec(), trailers, left));
        assert_eq!(decoded(text.as_bytes()), want, "{case}");
    }
}

#[test]
fn a_request_as_bytes() {
    use request::RequestFraming::{Chunked, Empty, Length};
    for (case, method, framing, want) in [
        ("no body", "GET", Empty, "GET /a?b HTTP/1.1\r\nhost: web\r\nx: 1\r\nx: 2\r\n\r\n"),
        (
            "no body where one is usual",
            "POST",
            Empty,
            "POST /a?b HTTP/1.1\r\nhost: web\r\nx: 1\r\nx: 2\r\ncontent-length: 0\r\n\r\n",
        ),
        ("a length", "PUT", Length(5), "PUT /a?b HTTP/1.1\r\nhost: web\r\nx: 1\r\nx: 2\r\ncontent-length: 5\r\n\r\n"),
        ("chunks", "X", Chunked, "X /a?b HTTP/1.1\r\nhost: web\r\nx: 1\r\nx: 2\r\ntransfer-encoding: chunked\r\n\r\n"),
    ] {
        let request = Request::builder().method(method).uri("http://other/a?b").header("host", "web").header("x", "1");
        // Whatever the head says of framing, the body decides.
        let request =
            request.header("content-length", "7").header("x", "2").header("transfer-encoding", "gzip").body(());
        let mut out = Vec::new();
        request::head(&request.expect("a request").into_parts().0, &AddedFields::new(), framing, &mut out);
        assert_eq!(String::from_utf8(out).expect("text"), want, "{case}");
    }
}

/// Responses that are nearly valid, so that most of them are read far.
fn response() -> impl Strategy<Value = Vec<u8>> {
    let status = prop::sample::select(vec!["200 OK", "204 No Content", "304 X", "500 Oh", "100 Continue", "2000 X"]);
    let field = prop::sample::select(vec![
        "Content-Length: 5\r\n",
        "Content-Length: 7\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "X: y\r\n",
        "Content-Length: 5, 5\r\n",
        "Set-Cookie: a\n",
        " folded\r\n",
        "",
    ]);
    let body = prop::sample::select(vec![
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;x\r\nhello\r\n0\r\nT: u\r\n\r\n",
        "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\nmore",
        "5\nhello",
        "",
        "ffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ]);
    (status, prop::collection::vec(field, 0..4), body)
        .prop_map(|(status, fields, body)| format!("HTTP/1.1 {status}\r\n{}\r\n{body}", fields.concat()).into_bytes())
}

proptest! {
    /// However a response is cut into segments, it is read the same.
    #[test]
    fn cuts_do_not_matter(response in response(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8), to_head: bool) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(response.len() + 1)).collect();
        cuts.extend([0, response.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &response[two[0]..two[1]]).filter(|piece| !piece.is_empty()).collect();
        prop_assert_eq!(read_response(&pieces, to_head), read_response(&[&response], to_head));
    }

    /// What was chunked by us is read as it was.
    #[test]
    fn chunks_round_trip(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20)) {
        let mut out = Vec::new();
        for chunk in &chunks {
            chunked::size_line(chunk.len(), &mut out);
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        chunked::end(None, &mut out);
        prop_assert_eq!(decoded(&out), Ok((chunks.concat(), 0, 0)));
    }

    /// No bytes whatever make it panic, and a response that can be reused has left nothing.
    #[test]
    fn anything(bytes in prop::collection::vec(any::<u8>(), 0..200), to_head: bool) {
        if let Response::Complete { left, reusable: true, .. } = read_response(&[&bytes], to_head) {
            prop_assert_eq!(left, 0);
        }
    }
}
