//! The body of a response, read from the buffer it was received into. Pure.

use bytes::BytesMut;

use super::{
    chunked::{self, DecodedPiece},
    head::ResponseFraming,
};
use crate::upstream::ProtocolError;

/// How far the reading of a body is.
#[derive(Debug)]
pub(crate) enum BodyDecoder {
    /// So many bytes are left.
    Length(u64),
    /// By chunks.
    Chunked(chunked::ChunkedDecoder),
    /// Until the connection ends.
    Close,
}

impl BodyDecoder {
    /// Nothing was read.
    pub(crate) fn new(framing: ResponseFraming) -> Self {
        match framing {
            ResponseFraming::Empty => Self::Length(0),
            ResponseFraming::Length(length) => Self::Length(length),
            ResponseFraming::Chunked => Self::Chunked(chunked::ChunkedDecoder::new()),
            ResponseFraming::Close => Self::Close,
        }
    }

    /// Takes the next piece off the front of `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<DecodedPiece, ProtocolError> {
        match self {
            Self::Length(0) => Ok(DecodedPiece::End),
            Self::Chunked(decoder) => decoder.next(buffer),
            _ if buffer.is_empty() => Ok(DecodedPiece::More),
            Self::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= length as u64;
                Ok(DecodedPiece::Data(buffer.split_to(length).freeze()))
            }
            Self::Close => Ok(DecodedPiece::Data(buffer.split().freeze())),
        }
    }

    /// All of the body was read; not known before the connection ends where that is what ends it.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_done(),
            Self::Close => false,
        }
    }

    /// The end of the connection is the end of the body.
    pub(crate) fn ends_by_closing(&self) -> bool {
        matches!(self, Self::Close)
    }

    /// Bytes that are left, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        if let Self::Length(left) = self { Some(*left) } else { None }
    }
}
