//! Bytes into frames.
//!
//! DATA is handed on piece by piece as it arrives, so that nothing of it is held here. Every other frame is handed on once it
//! is complete, from the bytes that arrived where they hold all of it.

use crate::{
    error::Reason,
    frame::{FrameHead, HEAD, PAYLOAD, PREFACE, flag, kind},
};

/// Memory that is kept for the next incomplete frame.
const KEPT: usize = 256;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A piece of a DATA frame.
    Data(DataPiece<'a>),
    /// Any other frame.
    Other(FrameHead, &'a [u8]),
}

/// A piece of a DATA frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DataPiece<'a> {
    pub(crate) stream: u32,
    pub(crate) bytes: &'a [u8],
    /// With the first piece: the length of the whole payload, which all counts for flow control.
    pub(crate) frame: Option<usize>,
    /// With the first piece: bytes of padding, its length included.
    pub(crate) padding: usize,
    /// It is the last piece of the stream.
    pub(crate) ends_stream: bool,
}

/// Where in the bytes of a connection we are.
#[derive(Debug)]
pub(crate) struct Parser {
    state: State,
    /// What has come of the preface, of what precedes a payload, or of a payload.
    partial: Vec<u8>,
    /// `partial` was handed on.
    given: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Preface,
    Head,
    Payload(FrameHead),
    PadLength(FrameHead),
    Data(DataState),
}

#[derive(Clone, Copy, Debug)]
struct DataState {
    stream: u32,
    left: usize,
    padding: usize,
    ends_stream: bool,
    /// Length and padding of the frame, until its first piece was handed on.
    first: Option<(usize, usize)>,
}

impl Parser {
    /// What a client sends.
    pub(crate) fn of_client() -> Self {
        Self { state: State::Preface, ..Self::of_server() }
    }

    /// What a server sends.
    pub(crate) fn of_server() -> Self {
        Self { state: State::Head, partial: Vec::new(), given: false }
    }

    /// Takes the next frame, or the next piece of one, from `input`. `None` once all of `input` was taken.
    pub(crate) fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'a>>, Reason> {
        if std::mem::take(&mut self.given) {
            self.partial.clear();
            self.partial.shrink_to(KEPT);
        }
        loop {
            match self.state {
                State::Preface => {
                    if !self.read_preface(input)? {
                        return Ok(None);
                    }
                }
                State::Head => {
                    let Some(head) = self.read_head(input) else { return Ok(None) };
                    if head.length > PAYLOAD {
                        return Err(Reason::FRAME_SIZE_ERROR);
                    }
                    self.state = begin(head);
                }
                State::PadLength(head) => {
                    let Some((pad, rest)) = input.split_first() else { return Ok(None) };
                    *input = rest;
                    let padding = usize::from(*pad);
                    // The length of the padding takes a byte itself.
                    let left = head.length.checked_sub(padding + 1).ok_or(Reason::PROTOCOL_ERROR)?;
                    self.state = State::Data(DataState {
                        stream: head.stream,
                        left,
                        padding,
                        ends_stream: head.has(flag::END_STREAM),
                        first: Some((head.length, padding + 1)),
                    });
                }
                State::Data(data) => match self.read_data(data, input) {
                    Some(piece) => return Ok(Some(Frame::Data(piece))),
                    None if input.is_empty() => return Ok(None),
                    None => {}
                },
                State::Payload(head) => return Ok(self.read_payload(head, input)),
            }
        }
    }

    /// Whether the preface is complete. It is compared as it arrives, so that another protocol is not waited for.
    fn read_preface(&mut self, input: &mut &[u8]) -> Result<bool, Reason> {
        let have = self.partial.len();
        let (taken, rest) = input.split_at(input.len().min(PREFACE.len() - have));
        if *taken != PREFACE[have..have + taken.len()] {
            return Err(Reason::PROTOCOL_ERROR);
        }
        *input = rest;
        self.partial.extend_from_slice(taken);
        if self.partial.len() < PREFACE.len() {
            return Ok(false);
        }
        self.partial.clear();
        self.state = State::Head;
        Ok(true)
    }

    fn read_head(&mut self, input: &mut &[u8]) -> Option<FrameHead> {
        if self.partial.is_empty()
            && let Some((head, rest)) = input.split_first_chunk::<HEAD>()
        {
            *input = rest;
            return Some(FrameHead::read(head));
        }
        let (taken, rest) = input.split_at(input.len().min(HEAD - self.partial.len()));
        *input = rest;
        self.partial.extend_from_slice(taken);
        let head = FrameHead::read(self.partial.first_chunk::<HEAD>()?);
        self.partial.clear();
        Some(head)
    }

    /// The next piece of DATA; `None` where there is none: the frame is over, or more has to come.
    fn read_data<'a>(&mut self, mut data: DataState, input: &mut &'a [u8]) -> Option<DataPiece<'a>> {
        if data.left > 0 || data.first.is_some() {
            let (bytes, rest) = input.split_at(input.len().min(data.left));
            if bytes.is_empty() && data.left > 0 && data.first.is_none() {
                return None;
            }
            *input = rest;
            data.left -= bytes.len();
            let first = data.first.take();
            let ends_stream = data.left == 0 && data.ends_stream;
            self.state = if data.left == 0 && data.padding == 0 { State::Head } else { State::Data(data) };
            let (frame, padding) = first.map_or((None, 0), |(length, padding)| (Some(length), padding));
            return Some(DataPiece { stream: data.stream, bytes, frame, padding, ends_stream });
        }
        let skipped = input.len().min(data.padding);
        *input = &input[skipped..];
        data.padding -= skipped;
        self.state = if data.padding == 0 { State::Head } else { State::Data(data) };
        None
    }

    fn read_payload<'a, 'i: 'a>(&'a mut self, head: FrameHead, input: &mut &'i [u8]) -> Option<Frame<'a>> {
        if self.partial.is_empty() && input.len() >= head.length {
            let (payload, rest) = input.split_at(head.length);
            *input = rest;
            self.state = State::Head;
            return Some(Frame::Other(head, payload));
        }
        let (taken, rest) = input.split_at(input.len().min(head.length - self.partial.len()));
        *input = rest;
        self.partial.extend_from_slice(taken);
        if self.partial.len() < head.length {
            return None;
        }
        self.state = State::Head;
        self.given = true;
        Some(Frame::Other(head, &self.partial))
    }
}

/// What follows `head`.
fn begin(head: FrameHead) -> State {
    match head.kind {
        // DATA belongs to a stream; without one it is an error, which is found where all frames are looked at.
        kind::DATA if head.has(flag::PADDED) && head.length > 0 => State::PadLength(head),
        kind::DATA if head.has(flag::PADDED) => State::Payload(head),
        kind::DATA => State::Data(DataState {
            stream: head.stream,
            left: head.length,
            padding: 0,
            ends_stream: head.has(flag::END_STREAM),
            first: Some((head.length, 0)),
        }),
        _ => State::Payload(head),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was read, with pieces of DATA put together.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Whole {
        Data { stream: u32, bytes: Vec<u8>, length: usize, padding: usize, ends: bool },
        Other(FrameHead, Vec<u8>),
    }

    fn read(parser: &mut Parser, bytes: &[u8], pieces: usize) -> Result<Vec<Whole>, Reason> {
        let mut all: Vec<Whole> = Vec::new();
        for mut input in bytes.chunks(pieces) {
            while let Some(frame) = parser.next(&mut input)? {
                match frame {
                    Frame::Other(head, payload) => all.push(Whole::Other(head, payload.to_vec())),
                    Frame::Data(DataPiece { stream, bytes, frame: Some(length), padding, ends_stream }) => {
                        all.push(Whole::Data { stream, bytes: bytes.to_vec(), length, padding, ends: ends_stream });
                    }
                    Frame::Data(piece) => {
                        let Some(Whole::Data { stream, bytes, ends, .. }) = all.last_mut() else { panic!("no first") };
                        assert_eq!(*stream, piece.stream);
                        assert!(!*ends, "pieces after the last one");
                        bytes.extend_from_slice(piece.bytes);
                        *ends = piece.ends_stream;
                    }
                }
            }
            assert!(input.is_empty());
        }
        Ok(all)
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        [&crate::frame::head(payload.len(), kind, flags, stream)[..], payload].concat()
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_divided(
            frames in prop::collection::vec((0..11u8, any::<u8>(), 0..9u32, prop::collection::vec(any::<u8>(), 0..60)), 0..20),
            pieces in 1..80usize,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect();
            let at_once = read(&mut Parser::of_server(), &bytes, bytes.len().max(1));
            prop_assert_eq!(read(&mut Parser::of_server(), &bytes, pieces), at_once.clone());
            let with_preface = [&PREFACE[..], &bytes].concat();
            prop_assert_eq!(read(&mut Parser::of_client(), &with_preface, pieces), at_once);
        }
    }

    #[test]
    fn padding_is_no_data() {
        let padded = frame(kind::DATA, flag::PADDED | flag::END_STREAM, 3, b"\x02abc\0\0");
        let want = Whole::Data { stream: 3, bytes: b"abc".to_vec(), length: 6, padding: 3, ends: true };
        assert_eq!(read(&mut Parser::of_server(), &padded, 1), Ok(vec![want.clone()]));
        assert_eq!(
            read(&mut Parser::of_server(), &[padded.clone(), padded].concat(), 100),
            Ok(vec![want.clone(), want])
        );
        let only = frame(kind::DATA, flag::PADDED, 3, b"\x02\0\0");
        let want = Whole::Data { stream: 3, bytes: Vec::new(), length: 3, padding: 3, ends: false };
        assert_eq!(read(&mut Parser::of_server(), &only, 1), Ok(vec![want]));
    }

    #[test]
    fn what_is_malformed() {
        for (case, bytes, want) in [
            ("more padding than payload", frame(kind::DATA, flag::PADDED, 3, b"\x03ab"), Reason::PROTOCOL_ERROR),
            ("a large frame", crate::frame::head(PAYLOAD + 1, kind::DATA, 0, 1).to_vec(), Reason::FRAME_SIZE_ERROR),
        ] {
            assert_eq!(read(&mut Parser::of_server(), &bytes, 4), Err(want), "{case}");
        }
        assert_eq!(read(&mut Parser::of_client(), b"GET / HTTP/1.1\r\n\r\n", 3), Err(Reason::PROTOCOL_ERROR));
    }
}
