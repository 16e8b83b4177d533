//! SETTINGS (RFC 9113 section 6.5): what each side allows the other.

use crate::error::Reason;

/// The initial window of a stream and of the connection, until something else is said (RFC 9113 section 6.9.2).
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;

/// The largest window there can be.
pub(crate) const MAX_WINDOW: u32 = 0x7fff_ffff;

/// Bytes that the table of a header decoder may have, until something else is said (RFC 7541 section 6.5.2).
pub(crate) const DEFAULT_TABLE: usize = 4096;

mod name {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_FRAME_SIZE: u16 = 5;
    pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// RFC 8441 section 3.
    pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// What this side allows its peer.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes that the peer may send on a stream before some of them are released.
    pub stream_window: u32,
    /// The same for all streams together. At least 65,535.
    pub connection_window: u32,
    /// Streams that the peer may have open at once.
    pub streams: u32,
    /// Bytes of a head, as RFC 9113 section 6.5.2 counts them.
    pub head: u32,
}

/// The values of a SETTINGS frame.
pub(crate) fn ours(config: &Config, is_server: bool) -> Vec<(u16, u32)> {
    let mut values = vec![(name::INITIAL_WINDOW_SIZE, config.stream_window), (name::MAX_HEADER_LIST_SIZE, config.head)];
    if is_server {
        values.push((name::MAX_CONCURRENT_STREAMS, config.streams));
        values.push((name::ENABLE_CONNECT_PROTOCOL, 1));
    } else {
        values.push((name::ENABLE_PUSH, 0));
    }
    values
}

/// What the peer allows this side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSettings {
    /// The peer has sent its first SETTINGS.
    pub(crate) are_known: bool,
    pub(crate) stream_window: u32,
    /// Streams that this side may have open at once.
    pub(crate) streams: u32,
    pub(crate) table: usize,
    /// Extended CONNECT is allowed (RFC 8441).
    pub(crate) connect: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            are_known: false,
            stream_window: DEFAULT_WINDOW,
            streams: u32::MAX,
            table: DEFAULT_TABLE,
            connect: false,
        }
    }
}

impl PeerSettings {
    /// Applies the payload of a SETTINGS frame, in its order.
    pub(crate) fn apply(&mut self, payload: &[u8], from_server: bool) -> Result<(), Reason> {
        let (values, []) = payload.as_chunks::<6>() else { return Err(Reason::FRAME_SIZE_ERROR) };
        for [a, b, value @ ..] in values {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                name::HEADER_TABLE_SIZE => self.table = usize::try_from(value).unwrap_or(usize::MAX),
                name::ENABLE_PUSH if value > 1 || (from_server && value == 1) => return Err(Reason::PROTOCOL_ERROR),
                name::MAX_CONCURRENT_STREAMS => self.streams = value,
                name::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => return Err(Reason::FLOW_CONTROL_ERROR),
                name::INITIAL_WINDOW_SIZE => self.stream_window = value,
                name::MAX_FRAME_SIZE if !(0x4000..=0x00ff_ffff).contains(&value) => return Err(Reason::PROTOCOL_ERROR),
                // Frames are as large as every peer takes: larger ones gain nothing.
                name::MAX_FRAME_SIZE => {}
                name::ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Reason::PROTOCOL_ERROR),
                name::ENABLE_CONNECT_PROTOCOL => self.connect = value == 1,
                _ => {}
            }
        }
        self.are_known = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(values: &[(u16, u32)]) -> Vec<u8> {
        values.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat()).collect()
    }

    #[test]
    fn values_are_applied_in_their_order() {
        let mut settings = PeerSettings::default();
        let values = payload(&[(4, 1), (3, 100), (4, 2), (1, 0), (77, 5)]);
        assert_eq!(settings.apply(&values, true), Ok(()));
        assert_eq!((settings.stream_window, settings.streams, settings.table), (2, 100, 0));
        assert!(settings.are_known);
    }

    #[test]
    fn values_that_are_refused() {
        for (case, value, from_server, want) in [
            ("push by a server", (2, 1), true, Some(Reason::PROTOCOL_ERROR)),
            ("push by a client", (2, 1), false, None),
            ("push is a switch", (2, 2), false, Some(Reason::PROTOCOL_ERROR)),
            ("window", (4, 0x8000_0000), true, Some(Reason::FLOW_CONTROL_ERROR)),
            ("largest window", (4, 0x7fff_ffff), true, None),
            ("small frames", (5, 0x3fff), true, Some(Reason::PROTOCOL_ERROR)),
            ("large frames", (5, 0x0100_0000), true, Some(Reason::PROTOCOL_ERROR)),
            ("connect is a switch", (8, 2), true, Some(Reason::PROTOCOL_ERROR)),
        ] {
            let got = PeerSettings::default().apply(&payload(&[value]), from_server);
            assert_eq!(got.err(), want, "{case}");
        }
        assert_eq!(PeerSettings::default().apply(&[0; 7], true), Err(Reason::FRAME_SIZE_ERROR));
    }
}
