//! Where the frames and header blocks of a caller's HTTP/2 connection end.
//!
//! The `h2` crate waits for the rest of a frame or a header block without any limit. So the frames are followed in the
//! bytes before it gets them. Only the nine bytes that precede a payload are read. Pure.

/// Bytes of the preface, and of what precedes the payload of a frame (RFC 9113 sections 3.4 and 4.1).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What is incomplete after some more bytes. A frame of DATA never is: an upload may be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http::server) enum Progress {
    /// Nothing.
    Complete,
    /// A frame or header block that began within these bytes.
    Began,
    /// The same frame or header block as before.
    Incomplete,
}

/// How far the frames were followed.
#[derive(Debug)]
pub(in crate::http::server) struct FrameBounds {
    /// Bytes of the preface or of a payload that are still to come.
    left: usize,
    /// What precedes the payload, of which `seen` bytes have come.
    head: [u8; FRAME_HEAD],
    seen: usize,
    /// A header block has begun, and the frame that ends it has not.
    in_block: bool,
    /// Bytes of its frames that are complete.
    block: usize,
    opened: bool,
}

impl FrameBounds {
    /// Nothing has come.
    pub(in crate::http::server) fn new() -> Self {
        Self { left: PREFACE, head: [0; FRAME_HEAD], seen: 0, in_block: false, block: 0, opened: false }
    }

    /// The preface and a frame have come to their end.
    pub(in crate::http::server) fn is_opened(&self) -> bool {
        self.opened
    }

    /// Bytes of an incomplete frame or header block that have come.
    pub(in crate::http::server) fn held(&self) -> usize {
        let payload = if self.seen == FRAME_HEAD { self.payload() - self.left } else { 0 };
        self.block + payload
    }

    fn payload(&self) -> usize {
        usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2])
    }

    /// Follows `bytes`.
    pub(in crate::http::server) fn pass(&mut self, mut bytes: &[u8]) -> Progress {
        let mut is_new = !self.is_incomplete();
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            if self.left > 0 {
                break;
            }
            if self.seen == FRAME_HEAD {
                self.end_frame();
                is_new |= !self.in_block;
            }
            if bytes.is_empty() {
                break;
            }
            let taken = (FRAME_HEAD - self.seen).min(bytes.len());
            self.head[self.seen..self.seen + taken].copy_from_slice(&bytes[..taken]);
            self.seen += taken;
            bytes = &bytes[taken..];
            if self.seen == FRAME_HEAD {
                self.left = self.payload();
            }
        }
        match (self.is_incomplete(), is_new) {
            (false, _) => Progress::Complete,
            (true, true) => Progress::Began,
            (true, false) => Progress::Incomplete,
        }
    }

    /// The payload is complete.
    fn end_frame(&mut self) {
        let (kind, flags) = (self.head[3], self.head[4]);
        self.seen = 0;
        self.opened = true;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
            self.block = if self.in_block { self.block + self.payload() } else { 0 };
        }
    }

    fn is_incomplete(&self) -> bool {
        let is_data = self.seen == FRAME_HEAD && self.head[3] == DATA;
        self.in_block || (self.left > 0 || self.seen > 0) && !is_data
    }
}

#[cfg(test)]
mod tests {
    use super::{Progress::*, *};

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEAD + usize::from(length), 0);
        frame
    }

    fn opened() -> FrameBounds {
        let mut bounds = FrameBounds::new();
        assert_eq!(bounds.pass(&[0; PREFACE]), Complete);
        assert!(!bounds.is_opened());
        assert_eq!(bounds.pass(&frame(4, 0, 0)), Complete);
        assert!(bounds.is_opened());
        bounds
    }

    #[test]
    fn a_connection_opens_with_its_first_frame() {
        let bytes = [&[0; PREFACE][..], &frame(4, 0, 6)].concat();
        let mut bounds = FrameBounds::new();
        for (at, byte) in bytes.iter().enumerate() {
            assert!(!bounds.is_opened(), "after {at} bytes");
            bounds.pass(&[*byte]);
        }
        assert!(bounds.is_opened());
    }

    #[test]
    fn what_is_incomplete() {
        let whole = || frame(HEADERS, END_HEADERS, 20);
        let open = || frame(HEADERS, 0, 20);
        let more = || frame(CONTINUATION, 0, 20);
        let last = || frame(CONTINUATION, END_HEADERS, 20);
        for (case, pieces) in [
            ("a frame", vec![(whole(), Complete)]),
            ("two frames", vec![([whole(), whole()].concat(), Complete)]),
            ("its first byte", vec![(whole()[..1].to_vec(), Began), (whole()[1..].to_vec(), Complete)]),
            ("no payload", vec![(whole()[..9].to_vec(), Began), (whole()[9..].to_vec(), Complete)]),
            (
                "in three pieces",
                vec![
                    (whole()[..9].to_vec(), Began),
                    (whole()[9..20].to_vec(), Incomplete),
                    (whole()[20..].to_vec(), Complete),
                ],
            ),
            (
                "one behind another",
                vec![
                    (whole()[..20].to_vec(), Began),
                    ([&whole()[20..], &whole()[..20]].concat(), Began),
                    (whole()[20..].to_vec(), Complete),
                ],
            ),
            ("a block of three frames", vec![(open(), Began), (more(), Incomplete), (last(), Complete)]),
            ("a block behind another", vec![(open(), Began), ([last(), open()].concat(), Began)]),
            (
                "data",
                vec![(frame(DATA, 0, 20)[..15].to_vec(), Complete), (frame(DATA, 0, 20)[15..].to_vec(), Complete)],
            ),
            (
                "a block behind data",
                vec![
                    (frame(DATA, 0, 20)[..15].to_vec(), Complete),
                    ([&frame(DATA, 0, 20)[15..], &whole()[..5]].concat(), Began),
                ],
            ),
            ("a frame of another kind", vec![(frame(6, 0, 8)[..12].to_vec(), Began)]),
        ] {
            let mut bounds = opened();
            for (at, (bytes, want)) in pieces.iter().enumerate() {
                assert_eq!(bounds.pass(bytes), *want, "{case}, piece {at}");
            }
        }
    }
}
