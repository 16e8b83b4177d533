//! Compression of header fields (HPACK, RFC 7541).
//!
//! A [`Decoder`] reads the header blocks that a peer sends on one connection, an [`Encoder`] writes those sent to it.
//! Each keeps a table of earlier fields, so blocks have to be passed in the order in which they are on the wire, and
//! none may be left out. Both are bounded by their tables: nothing a peer sends makes them keep more.
//!
//! What repeats from request to request costs little here: the decoder's table holds parsed fields, and an indexed
//! field is a clone of one; the encoder finds a field by a short hash, and writes one or two bytes.

mod decoder;
mod encoder;
mod field;
mod fuzz;
mod huffman;
mod integer;
mod sample;
mod static_table;
mod table;
#[cfg(test)]
mod tests;
mod well_known;

#[doc(hidden)]
pub use self::fuzz::HeaderCompression;
pub(crate) use self::{decoder::Decoder, encoder::Encoder, field::Field};

/// SETTINGS_HEADER_TABLE_SIZE as long as no other one was sent, and all that [`Encoder`] makes use of.
const DEFAULT_TABLE_SIZE: usize = 4096;

/// What each field of a table counts beside its name and value (RFC 7541 section 4.1).
const OVERHEAD: usize = 32;

/// Why a header block could not be decoded. The tables of both sides may differ from here on, so the connection ends
/// with COMPRESSION_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the header block ends within a field")]
    Truncated,
    #[error("an integer of a header block is too large")]
    IntegerTooLarge,
    #[error("a header block refers to entry {0}, which is in no table")]
    NoSuchEntry(u64),
    #[error("a header block sets the table's size to {0}, which is more than was allowed")]
    TableTooLarge(u64),
    #[error("a header block changes the table's size after its first field")]
    LateTableSize,
    #[error("a Huffman-coded string contains the end-of-string symbol")]
    EndOfString,
    #[error("a Huffman-coded string is not padded as it should be")]
    Padding,
}
