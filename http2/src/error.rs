//! Why a stream or a connection ended.

use std::fmt;

/// The code of a RST_STREAM or GOAWAY frame (RFC 9113 section 7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(u32);

impl Reason {
    /// No error.
    pub const NO_ERROR: Self = Self(0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// An internal error.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// The peer sent more than a window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame for a stream that is closed.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame of a size that it must not have.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The stream was refused before anybody looked at its request.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The stream is no longer wanted.
    pub const CANCEL: Self = Self(8);
    /// A header block that cannot be decompressed.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The peer makes too much work.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    pub(crate) fn from_code(code: u32) -> Self {
        Self(code)
    }

    pub(crate) fn code(self) -> u32 {
        self.0
    }

    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            _ => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who ended a stream or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The peer did.
    Peer,
    /// This crate did, because of what the peer sent.
    Protocol,
    /// The program that uses this crate did.
    Program,
}

/// Why a stream or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The stream was reset. Others on its connection go on.
    #[error("{} reset the stream: {}", who(*.1), .0)]
    Reset(Reason, Initiator),
    /// The connection was ended with a GOAWAY, or does not take the request any more.
    #[error("{} ended the connection: {}", who(*.1), .0)]
    GoAway(Reason, Initiator),
    /// The connection ended without a word.
    #[error("the connection was closed")]
    Closed,
    /// The head of the response is larger than the limit. The stream was reset.
    #[error("the head is larger than the limit")]
    HeadTooLarge,
    /// The peer allows no other stream for now. Nothing was sent.
    #[error("the peer allows no other stream for now")]
    TooManyStreams,
}

fn who(initiator: Initiator) -> &'static str {
    match initiator {
        Initiator::Peer => "the peer",
        Initiator::Protocol | Initiator::Program => "this side",
    }
}

impl Error {
    /// The code that the stream or the connection ended with, where there is one.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Reset(reason, _) | Self::GoAway(reason, _) => Some(*reason),
            Self::Closed | Self::HeadTooLarge | Self::TooManyStreams => None,
        }
    }

    /// Only the stream ended: others on its connection go on.
    #[must_use]
    pub fn is_of_stream(&self) -> bool {
        matches!(self, Self::Reset(..) | Self::HeadTooLarge | Self::TooManyStreams)
    }

    /// The peer ended it.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Reset(_, Initiator::Peer) | Self::GoAway(_, Initiator::Peer))
    }
}

/// What the peer did wrong, and what ends by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// The connection ends.
    Connection(Reason),
    /// The stream ends.
    Stream(u32, Reason),
}
