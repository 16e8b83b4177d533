mod exchange;
mod malformed;
mod others;
mod rfc;
mod strings;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{DecodeError, Decoder, Encoder, Field, OVERHEAD};

/// The fields of a block with the sizes the decoder counts them with.
fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(Field, usize)>, DecodeError> {
    let mut fields = Vec::new();
    decoder.decode(block, &mut |field, size| fields.push((field, size)))?;
    Ok(fields)
}

/// A block with these fields.
fn encode<'a>(encoder: &mut Encoder, fields: impl IntoIterator<Item = &'a Field>) -> Vec<u8> {
    let mut block = Vec::new();
    encoder.begin(&mut block);
    for field in fields {
        super::fuzz::encode(encoder, field, &mut block);
    }
    block
}

/// A field that is not malformed.
fn field(name: &str, value: &str) -> Field {
    let text = || Bytes::copy_from_slice(value.as_bytes());
    match name {
        ":method" => Field::Method(Method::from_bytes(value.as_bytes()).expect("a method")),
        ":scheme" => Field::Scheme(text()),
        ":authority" => Field::Authority(text()),
        ":path" => Field::Path(text()),
        ":protocol" => Field::Protocol(text()),
        ":status" => Field::Status(StatusCode::from_bytes(value.as_bytes()).expect("a status")),
        _ => Field::Header(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        ),
    }
}

/// Name and value as they are on the wire.
fn text(field: &Field) -> (String, Vec<u8>) {
    let (name, value) = super::fuzz::text(field).expect("a field that is not malformed");
    (String::from_utf8(name).expect("ASCII"), value)
}

/// What a table counts for a field.
fn size(field: &Field) -> usize {
    let (name, value) = text(field);
    name.len() + value.len() + OVERHEAD
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
