//! What is to be written: frames in their order.
//!
//! Small payloads are copied next to what precedes them, so that they are written in one piece. Large ones are kept as they
//! are.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    task::Poll,
};

use bytes::{Buf, Bytes};

/// Payloads below this size are copied.
const COPIED: usize = 2 * 1024;

/// Pieces that are written at once.
const SLICES: usize = 16;

/// Memory that is kept while nothing waits.
const KEPT: usize = 4 * 1024;

/// The same while no stream is open.
const KEPT_AT_REST: usize = 1024;

/// Bytes that were written are given up once there are so many of them.
const COMPACT: usize = 16 * 1024;

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Everything but large payloads.
    small: Vec<u8>,
    /// How much of `small` was written.
    written: usize,
    /// Large payloads, each with how many bytes of `small` precede it.
    large: VecDeque<(usize, Bytes)>,
    large_bytes: usize,
}

impl Output {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.small.len() - self.written + self.large_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where frames without a large payload are appended.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.small
    }

    /// Appends a payload.
    pub(crate) fn payload(&mut self, bytes: Bytes) {
        if bytes.len() < COPIED {
            self.small.extend_from_slice(&bytes);
        } else {
            self.large_bytes += bytes.len();
            self.large.push_back((self.small.len(), bytes));
        }
    }

    /// Writes until nothing waits, or `write` is not ready.
    pub(crate) fn write_with(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.large.is_empty() {
                write(&[IoSlice::new(&self.small[self.written..])])
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = self.slices(&mut slices);
                write(&slices[..count])
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(length)) => self.advance(length),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing waits any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives back most of the memory that is kept for what will be written later.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && self.small.capacity() > KEPT_AT_REST {
            self.clear();
        }
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let (mut count, mut at) = (0, self.written);
        for (before, payload) in &self.large {
            if count + 2 > SLICES {
                return count;
            }
            if *before > at {
                slices[count] = IoSlice::new(&self.small[at..*before]);
                count += 1;
                at = *before;
            }
            slices[count] = IoSlice::new(payload);
            count += 1;
        }
        if count < SLICES && at < self.small.len() {
            slices[count] = IoSlice::new(&self.small[at..]);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut length: usize) {
        while length > 0 {
            let end = self.large.front().map_or(self.small.len(), |(before, _)| *before);
            let taken = length.min(end - self.written);
            self.written += taken;
            length -= taken;
            if self.written == end
                && let Some((_, payload)) = self.large.front_mut()
            {
                let taken = length.min(payload.len());
                payload.advance(taken);
                self.large_bytes -= taken;
                length -= taken;
                if payload.is_empty() {
                    self.large.pop_front();
                }
            } else if taken == 0 {
                // More than there was: the writer is wrong.
                break;
            }
        }
        if self.large.is_empty() && self.written == self.small.len() {
            self.small.clear();
            self.small.shrink_to(KEPT);
            self.written = 0;
        } else if self.written >= COMPACT {
            self.small.drain(..self.written);
            for (before, _) in &mut self.large {
                *before -= self.written;
            }
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_is_written_in_order(
            parts in prop::collection::vec((any::<bool>(), 0..3 * COPIED), 0..20),
            takes in prop::collection::vec(1..2 * COPIED, 1..5),
        ) {
            let (mut output, mut want, mut got) = (Output::default(), Vec::new(), Vec::new());
            let mut takes = takes.iter().cycle();
            for (number, (is_payload, length)) in parts.iter().enumerate() {
                let bytes: Vec<u8> = (0..*length).map(|at| (at + number) as u8).collect();
                want.extend_from_slice(&bytes);
                if *is_payload { output.payload(bytes.into()) } else { output.buffer().extend_from_slice(&bytes) }
                prop_assert_eq!(output.len(), want.len() - got.len());
                // Some is written in between.
                let mut is_first = true;
                let _ = output.write_with(|slices| {
                    if !std::mem::take(&mut is_first) { return Poll::Pending; }
                    take(slices, *takes.next().expect("a cycle"), &mut got)
                });
            }
            let written = output.write_with(|slices| take(slices, *takes.next().expect("a cycle"), &mut got));
            prop_assert!(matches!(written, Poll::Ready(Ok(()))));
            prop_assert!(output.is_empty());
            prop_assert_eq!(got, want);
        }
    }

    fn take(slices: &[IoSlice<'_>], most: usize, got: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let before = got.len();
        for slice in slices {
            let left = most - (got.len() - before);
            got.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        Poll::Ready(Ok(got.len() - before))
    }
}
