//! The layout of frames (RFC 9113 sections 4 and 6), and how those without a header block are written.

use crate::error::Reason;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that precede a payload.
pub(crate) const HEAD: usize = 9;

/// Largest payload that is taken, and that every peer takes.
pub(crate) const PAYLOAD: usize = 16 * 1024;

pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// What precedes a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl FrameHead {
    /// Reads it. The reserved bit of the stream is ignored.
    pub(crate) fn read(bytes: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Self {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The bytes that precede a payload of `length` bytes.
pub(crate) fn head(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEAD] {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [a, b, c, kind, flags, d, e, f, g]
}

/// The peer may send `increment` bytes more on `stream`, or on the connection where that is 0.
pub(crate) fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    out.extend_from_slice(&head(4, kind::WINDOW_UPDATE, 0, stream));
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(crate) fn rst_stream(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    out.extend_from_slice(&head(4, kind::RST_STREAM, 0, stream));
    out.extend_from_slice(&reason.code().to_be_bytes());
}

pub(crate) fn goaway(out: &mut Vec<u8>, last: u32, reason: Reason) {
    out.extend_from_slice(&head(8, kind::GOAWAY, 0, 0));
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.code().to_be_bytes());
}

pub(crate) fn ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    out.extend_from_slice(&head(8, kind::PING, flags, 0));
    out.extend_from_slice(&payload);
}

pub(crate) fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    out.extend_from_slice(&head(values.len() * 6, kind::SETTINGS, 0, 0));
    for (name, value) in values {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn settings_ack(out: &mut Vec<u8>) {
    out.extend_from_slice(&head(0, kind::SETTINGS, flag::ACK, 0));
}

/// Finishes a header block, which was written to `out` from `start` on, after nine bytes of room: its frame is completed,
/// or it is divided into a HEADERS frame and CONTINUATION frames.
pub(crate) fn finish_block(out: &mut Vec<u8>, start: usize, stream: u32, ends_stream: bool) {
    let length = out.len() - start - HEAD;
    let end = if ends_stream { flag::END_STREAM } else { 0 };
    if length <= PAYLOAD {
        out[start..start + HEAD].copy_from_slice(&head(length, kind::HEADERS, end | flag::END_HEADERS, stream));
        return;
    }
    out[start..start + HEAD].copy_from_slice(&head(PAYLOAD, kind::HEADERS, end, stream));
    let rest = out.split_off(start + HEAD + PAYLOAD);
    let mut parts = rest.chunks(PAYLOAD).peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
        out.extend_from_slice(&head(part.len(), kind::CONTINUATION, flags, stream));
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        let bytes = head(0x01_02_03, kind::HEADERS, 5, 0x7fff_fffe);
        assert_eq!(
            FrameHead::read(&bytes),
            FrameHead { length: 0x01_02_03, kind: kind::HEADERS, flags: 5, stream: 0x7fff_fffe }
        );
        let reserved = [0, 0, 0, 0, 0, 0x80, 0, 0, 1];
        assert_eq!(FrameHead::read(&reserved).stream, 1);
    }

    #[test]
    fn large_blocks_are_divided() {
        for (length, want) in [(0, vec![0]), (PAYLOAD, vec![PAYLOAD]), (PAYLOAD + 1, vec![PAYLOAD, 1])] {
            let mut out = vec![7; 3 + HEAD + length];
            finish_block(&mut out, 3, 5, true);
            let mut rest = &out[3..];
            let mut lengths = Vec::new();
            while let Some((bytes, after)) = rest.split_first_chunk() {
                let frame = FrameHead::read(bytes);
                let is_first = lengths.is_empty();
                assert_eq!(frame.kind, if is_first { kind::HEADERS } else { kind::CONTINUATION });
                assert_eq!(frame.flags & flag::END_STREAM != 0, is_first);
                lengths.push(frame.length);
                rest = &after[frame.length..];
                assert_eq!(frame.has(flag::END_HEADERS), rest.is_empty());
            }
            assert_eq!(lengths, want);
        }
    }
}
