//! A door for the fuzzer, `tests/fuzz`, which is a crate of its own.

use super::{Decoder, Encoder, Field, field::Name};

/// Name and value of a field; nothing when it is malformed. And the field's size, as tables count it.
type Text = (Option<(Vec<u8>, Vec<u8>)>, usize);

/// A decoder and an encoder for header blocks.
#[derive(Debug)]
pub struct HeaderCompression {
    decoder: Decoder,
    encoder: Encoder,
}

impl HeaderCompression {
    /// `max_size` is the most that the table of the decoder may have.
    #[must_use]
    pub fn new(max_size: usize) -> Self {
        Self { decoder: Decoder::new(max_size), encoder: Encoder::new() }
    }

    /// Decodes a block; nothing when the connection has to end.
    pub fn decode(&mut self, block: &[u8]) -> Option<Vec<Text>> {
        let mut fields = Vec::new();
        self.decoder.decode(block, &mut |field, size| fields.push((text(&field), size))).ok()?;
        Some(fields)
    }

    /// Encodes a block, after a setting of the peer when there is one. Fields that are malformed are left out.
    pub fn encode(&mut self, setting: Option<usize>, fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        if let Some(size) = setting {
            self.encoder.set_max_size(size);
        }
        let mut out = Vec::new();
        self.encoder.begin(&mut out);
        for (name, value) in fields {
            if let Ok(field) = Name::parse(name).with(value) {
                encode(&mut self.encoder, &field, &mut out);
            }
        }
        out
    }

    /// How large the table of the decoder is, and how large that of the encoder.
    #[must_use]
    pub fn table_sizes(&self) -> (usize, usize) {
        (self.decoder.table_size(), self.encoder.table_size())
    }
}

/// Adds a field to a block.
pub(super) fn encode(encoder: &mut Encoder, field: &Field, out: &mut Vec<u8>) {
    match field {
        Field::Method(method) => encoder.method(method, out),
        Field::Scheme(text) => encoder.scheme(text, out),
        Field::Authority(text) => encoder.authority(text, out),
        Field::Path(text) => encoder.path(text, out),
        Field::Protocol(text) => encoder.protocol(text, out),
        Field::Status(status) => encoder.status(*status, out),
        Field::Header(name, value) => encoder.header(name, value, out),
        Field::Malformed => {}
    }
}

/// A field's name and value.
pub(super) fn text(field: &Field) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name, value) = match field {
        Field::Method(method) => (":method", method.as_str().as_bytes()),
        Field::Scheme(text) => (":scheme", &text[..]),
        Field::Authority(text) => (":authority", &text[..]),
        Field::Path(text) => (":path", &text[..]),
        Field::Protocol(text) => (":protocol", &text[..]),
        Field::Status(status) => (":status", status.as_str().as_bytes()),
        Field::Header(name, value) => (name.as_str(), value.as_bytes()),
        Field::Malformed => return None,
    };
    Some((name.as_bytes().to_vec(), value.to_vec()))
}
