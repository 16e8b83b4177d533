//! Where WebSocket frames end, in a stream that the proxy passes on unread: the same however the stream is cut, and the
//! same as for a reader that reads whole frames.
//!
//! The first byte says how the rest is cut, and whose side of the connection it is.

#[allow(dead_code)]
#[path = "../../../proxy/src/http/upgrade/frames.rs"]
mod frames;

use self::frames::{Boundary, GOING_AWAY, GOING_AWAY_MASKED};
use crate::cut::cut;

pub(crate) fn run(bytes: &[u8]) {
    let Some((&seed, stream)) = bytes.split_first() else { return };
    let ends: Vec<usize> = whole(stream).iter().map(|frame| frame.end).collect();
    let mut boundary = Boundary::default();
    let mut passed = 0;
    for segment in cut(stream, seed) {
        assert_eq!(boundary.is_between(), passed == 0 || ends.contains(&passed), "after {passed} bytes");
        let next = ends.iter().find(|end| **end > passed).copied().unwrap_or(usize::MAX);
        assert_eq!(boundary.to_end(segment), segment.len().min(next - passed), "from {passed} on");
        boundary.pass(segment);
        passed += segment.len();
    }
    assert_eq!(boundary.is_between(), passed == 0 || ends.contains(&passed));
    let close: &[u8] = if seed & 1 == 0 { &GOING_AWAY } else { &GOING_AWAY_MASKED };
    end_here(stream, stream.len() * usize::from(seed) / 255, close);
}

/// A drain that begins when `passed` bytes have been passed on: what the other side reads is whole frames, those of the
/// stream and `close`.
fn end_here(stream: &[u8], passed: usize, close: &[u8]) {
    let mut boundary = Boundary::default();
    boundary.pass(&stream[..passed]);
    let mut end = passed;
    if !boundary.is_between() {
        end += boundary.to_end(&stream[passed..]);
        boundary.pass(&stream[passed..end]);
    }
    if !boundary.is_between() {
        // The frame that has begun is not complete yet.
        return;
    }
    let written = [&stream[..end], close].concat();
    let read = whole(&written);
    let last = read.last().expect("the closing frame");
    assert_eq!((last.first, &*last.payload, last.end), (0x88, &1001_u16.to_be_bytes()[..], written.len()));
    assert_eq!(read[..read.len() - 1], whole(&stream[..end]), "what comes before it is as it was");
}

/// A frame (RFC 6455 section 5.2).
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    /// Flags and opcode.
    first: u8,
    /// Without its mask.
    payload: Vec<u8>,
    /// Where it ends in the stream.
    end: usize,
}

/// The frames of a stream, without the last one if it is not complete.
fn whole(stream: &[u8]) -> Vec<Frame> {
    let (mut frames, mut rest) = (Vec::new(), stream);
    while let Some((first, payload, after)) = frame(rest) {
        frames.push(Frame { first, payload, end: stream.len() - after.len() });
        rest = after;
    }
    frames
}

/// First byte and payload of the frame at the beginning, and what follows it.
fn frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match second & 0x7f {
        126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        short => (u64::from(short), rest),
    };
    let (mask, rest) = match second & 0x80 {
        0 => ([0; 4], rest),
        _ => rest.split_first_chunk().map(|(mask, rest)| (*mask, rest))?,
    };
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((first, payload, rest))
}
