//! Where one WebSocket frame ends and the next begins (RFC 6455 section 5.2), in a stream that is passed on unread.
//!
//! A frame of our own may only be put between two others.

/// A close frame with code 1001 (going away), as a server sends it.
pub(super) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// The same as a client sends it: masked, here with zeros.
pub(super) const GOING_AWAY_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// Follows the frames of one direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Boundary {
    /// The head of a frame, as far as it has arrived.
    head: [u8; 14],
    have: usize,
    /// Payload still to come.
    payload: u64,
}

impl Boundary {
    /// Between two frames.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// How many of these bytes, which come next, belong to the frame that is under way; all of them if it goes on.
    pub(super) fn to_end(&self, bytes: &[u8]) -> usize {
        let mut next = self.clone();
        let mut length = 0;
        while length < bytes.len() && (length == 0 || !next.is_between()) {
            // Payload in one step, a head byte by byte.
            let step = usize::try_from(next.payload).unwrap_or(usize::MAX).clamp(1, bytes.len() - length);
            next.pass(&bytes[length..length + step]);
            length += step;
        }
        length
    }

    /// Takes note of bytes that are passed on.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skip = self.payload.min(bytes.len() as u64);
                self.payload -= skip;
                bytes = &bytes[usize::try_from(skip).unwrap_or(bytes.len())..];
                continue;
            }
            self.head[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.payload_of_head() {
                self.payload = payload;
                self.have = 0;
            }
        }
    }

    /// Length of the payload, once the head is whole.
    fn payload_of_head(&self) -> Option<u64> {
        let second = *self.head[..self.have].get(1)?;
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        let (length, payload) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes([self.head[2], self.head[3]]))),
            127 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&self.head[2..10]);
                (10, u64::from_be_bytes(bytes))
            }
            short => (2, u64::from(short)),
        };
        (self.have == length + mask).then_some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_frame_under_way() {
        for (case, before, next, want) in [
            ("a whole frame", &[][..], &[0x81, 2, b'h', b'i'][..], 4),
            ("two frames", &[], &[0x81, 1, b'a', 0x81, 1, b'b'], 3),
            ("an empty frame first", &[], &[0x81, 0, 0x81, 1, b'b'], 2),
            ("the rest of one", &[0x81, 3, b'a'], &[b'b', b'c', 0x81, 0], 2),
            ("not to its end", &[0x81, 9, b'a'], b"bcd", 3),
            ("the rest of a head", &[0x81], &[1, b'a', 0x81], 2),
        ] {
            let mut boundary = Boundary::default();
            boundary.pass(before);
            assert_eq!(boundary.to_end(next), want, "{case}");
        }
    }

    #[test]
    fn ends_of_frames() {
        let long = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let huge = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65_536]].concat();
        for (case, bytes, between) in [
            ("nothing", &[][..], true),
            ("an empty frame", &[0x81, 0], true),
            ("half a head", &[0x81], false),
            ("a short frame", &[0x81, 2, b'h', b'i'], true),
            ("payload missing", &[0x81, 2, b'h'], false),
            ("a masked frame", &[0x81, 0x82, 1, 2, 3, 4, 9, 9], true),
            ("mask missing", &[0x81, 0x82, 1, 2], false),
            ("an empty masked frame", &[0x89, 0x80, 1, 2, 3, 4], true),
            ("two frames", &[0x81, 1, b'a', 0x81, 1, b'b'], true),
            ("16 bits", &long, true),
            ("64 bits", &huge, true),
        ] {
            let mut whole = Boundary::default();
            whole.pass(bytes);
            assert_eq!(whole.is_between(), between, "{case}");
            let mut bytewise = Boundary::default();
            bytes.iter().for_each(|byte| bytewise.pass(&[*byte]));
            assert_eq!(bytewise.is_between(), between, "{case}, byte by byte");
        }
    }
}
