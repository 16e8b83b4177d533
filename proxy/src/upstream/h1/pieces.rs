//! A whole response from bytes that arrive in pieces: what the fuzzer and the property tests drive.

use bytes::BytesMut;
use http::Method;

use super::{
    chunked::DecodedPiece,
    decoder::BodyDecoder,
    head::{self, ResponseLimits},
};

/// What became of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is not complete.
    Incomplete,
    /// It is not valid.
    Invalid,
    /// It was read to its end.
    Complete {
        /// Its status.
        status: u16,
        /// Its fields, in order.
        fields: Vec<(String, Vec<u8>)>,
        /// Its body.
        body: Vec<u8>,
        /// The fields of its trailers.
        trailers: usize,
        /// Bytes that follow it.
        left: usize,
        /// The connection could carry another request.
        reusable: bool,
    },
}

/// Reads the response to a GET, or to a HEAD, from bytes that arrive in `pieces` and then end.
pub fn read_response(pieces: &[&[u8]], to_head: bool) -> Response {
    let limits = ResponseLimits { bytes: 64 * 1024, fields: 1024 };
    let method = if to_head { Method::HEAD } else { Method::GET };
    let mut buffer = BytesMut::new();
    let mut arriving = pieces.iter();
    let head = loop {
        match head::parse(&mut buffer, &limits, &method) {
            Err(_) => return Response::Invalid,
            Ok(Some(head)) => break head,
            Ok(None) => match arriving.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Response::Incomplete,
            },
        }
    };
    let mut decoder = BodyDecoder::new(head.framing);
    let (mut body, mut trailers) = (Vec::new(), 0);
    loop {
        match decoder.next(&mut buffer) {
            Err(_) => return Response::Invalid,
            Ok(DecodedPiece::Data(data)) => body.extend_from_slice(&data),
            Ok(DecodedPiece::Trailers(fields)) => trailers = fields.len(),
            Ok(DecodedPiece::End) => break,
            Ok(DecodedPiece::More) => match arriving.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None if decoder.ends_by_closing() => break,
                None => return Response::Incomplete,
            },
        }
    }
    let left = buffer.len() + arriving.map(|piece| piece.len()).sum::<usize>();
    let fields = head.parts.headers.iter();
    let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let (status, reusable) = (head.parts.status.as_u16(), head.keep_alive && left == 0);
    Response::Complete { status, fields, body, trailers, left, reusable }
}
