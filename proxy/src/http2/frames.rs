//! Where the frames and header blocks of an HTTP/2 connection end, and how many of them do no work.
//!
//! The protocol itself waits for the rest of a frame or a header block without any limit, because it has no clock, and takes
//! any number of frames. So they are followed in the bytes before it gets them. Only the nine bytes that precede a payload are read. Pure.

/// Bytes of the preface, and of what precedes the payload of a frame (RFC 9113 sections 3.4 and 4.1).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Most bytes of a DATA frame that are no bytes of a body: the length of the padding, and the padding.
const PADDING: usize = 256;

/// What is incomplete after some more bytes. A frame of DATA never is: an upload may be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing.
    Complete,
    /// A frame or header block that began within these bytes.
    Began,
    /// The same frame or header block as before.
    Incomplete,
}

/// Frames that came to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameCounts {
    /// Those without a byte of a body. HEADERS are among them: whether they open a stream, only the protocol knows.
    pub(crate) without_work: u32,
    /// Bytes of bodies.
    pub(crate) data: usize,
}

/// How far the frames were followed.
#[derive(Debug)]
pub(crate) struct FrameBounds {
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
    /// Since somebody asked.
    counts: FrameCounts,
}

impl FrameBounds {
    /// Nothing has come from a caller: its preface comes first.
    pub(crate) fn of_caller() -> Self {
        Self { left: PREFACE, ..Self::of_endpoint() }
    }

    /// Nothing has come from an endpoint.
    pub(crate) fn of_endpoint() -> Self {
        let counts = FrameCounts::default();
        Self { left: 0, head: [0; FRAME_HEAD], seen: 0, in_block: false, block: 0, opened: false, counts }
    }

    /// The frames that came to their end since this was last asked.
    pub(crate) fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.counts)
    }

    /// The preface and a frame have come to their end.
    pub(crate) fn is_opened(&self) -> bool {
        self.opened
    }

    /// Bytes of an incomplete frame or header block that have come. Those of DATA are given on as they come.
    pub(crate) fn held(&self) -> usize {
        let is_kept = self.seen == FRAME_HEAD && self.head[3] != DATA;
        let payload = if is_kept { self.payload() - self.left } else { 0 };
        self.block + payload
    }

    fn payload(&self) -> usize {
        usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2])
    }

    /// Follows `bytes`.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> Progress {
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
        let padding = if flags & PADDED == 0 { 0 } else { PADDING };
        match self.payload().saturating_sub(padding) {
            bytes @ 1.. if kind == DATA => self.counts.data += bytes,
            _ => self.counts.without_work += 1,
        }
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
        let mut bounds = FrameBounds::of_caller();
        assert_eq!(bounds.pass(&[0; PREFACE]), Complete);
        assert!(!bounds.is_opened());
        assert_eq!(bounds.pass(&frame(4, 0, 0)), Complete);
        assert!(bounds.is_opened());
        bounds
    }

    #[test]
    fn a_connection_opens_with_its_first_frame() {
        let bytes = [&[0; PREFACE][..], &frame(4, 0, 6)].concat();
        let mut bounds = FrameBounds::of_caller();
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

    #[test]
    fn frames_that_do_no_work() {
        for (case, bytes, without_work, data) in [
            ("DATA", frame(DATA, 0, 20), 0, 20),
            ("two of them", [frame(DATA, 0, 20), frame(DATA, 1, 5)].concat(), 0, 25),
            ("empty DATA", frame(DATA, 1, 0), 1, 0),
            ("DATA that may be all padding", frame(DATA, PADDED, 200), 1, 0),
            ("PING, SETTINGS", [frame(6, 0, 8), frame(4, 0, 0)].concat(), 2, 0),
            ("WINDOW_UPDATE, RST_STREAM, PRIORITY", [frame(8, 0, 4), frame(3, 0, 4), frame(2, 0, 5)].concat(), 3, 0),
            ("an unknown kind", frame(0x77, 0, 100), 1, 0),
            ("a block of three frames", [frame(HEADERS, 0, 0), frame(9, 0, 0), frame(9, 4, 0)].concat(), 3, 0),
            ("a frame that is not complete", frame(6, 0, 8)[..16].to_vec(), 0, 0),
        ] {
            let mut whole = opened();
            whole.take_counts();
            whole.pass(&bytes);
            assert_eq!(whole.take_counts(), FrameCounts { without_work, data }, "{case}");
            assert_eq!(whole.take_counts(), FrameCounts::default(), "{case}: asked again");
            let mut pieces = opened();
            pieces.take_counts();
            for byte in &bytes {
                pieces.pass(&[*byte]);
            }
            assert_eq!(pieces.take_counts(), FrameCounts { without_work, data }, "{case}: byte by byte");
        }
    }

    #[test]
    fn an_endpoint_sends_no_preface() {
        let mut bounds = FrameBounds::of_endpoint();
        bounds.pass(&frame(4, 0, 6));
        assert_eq!(bounds.take_counts(), FrameCounts { without_work: 1, data: 0 });
    }
}
