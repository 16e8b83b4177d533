//! Frames that say something about a stream or the connection, and carry nothing.

use super::{
    super::{Connection, LAST_PING, Leaving, RESET_UNSEEN, Role},
    Outcome,
};
use crate::{
    error::{Error, Initiator, Reason, Violation},
    frame::{self, FrameHead, flag},
    settings::MAX_WINDOW,
    stream::{Head, wake},
};

impl Connection {
    pub(super) fn rst_stream(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        let Ok(code) = <[u8; 4]>::try_from(payload) else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        let Some(key) = self.streams.find(head.stream) else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let is_unseen = matches!(stream.head, Some(Head::Request(_)));
        stream.fail(Error::Reset(Reason::from_code(u32::from_be_bytes(code)), Initiator::Peer));
        if is_unseen {
            // Nobody was told of it, so nobody will drop it.
            (stream.has_reader, stream.has_writer) = (false, false);
            self.reset_unseen += 1;
        }
        self.settle(key);
        match self.reset_unseen > RESET_UNSEEN {
            true => Err(Violation::Connection(Reason::ENHANCE_YOUR_CALM)),
            false => Ok(()),
        }
    }

    pub(super) fn settings(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        if head.stream != 0 {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        if head.has(flag::ACK) {
            let is_right = payload.is_empty() && self.peer.are_known;
            let reason = if payload.is_empty() { Reason::PROTOCOL_ERROR } else { Reason::FRAME_SIZE_ERROR };
            return if is_right { Ok(()) } else { Err(Violation::Connection(reason)) };
        }
        let before = self.peer.stream_window;
        self.peer.apply(payload, self.role == Role::Client).map_err(Violation::Connection)?;
        self.encoder.set_max_size(self.peer.table);
        let change = i64::from(self.peer.stream_window) - i64::from(before);
        if change != 0 {
            for stream in self.streams.iter_mut() {
                stream.send_window += change;
                if stream.send_window > i64::from(MAX_WINDOW) {
                    return Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR));
                }
                wake(&mut stream.writer);
            }
        }
        frame::settings_ack(self.output.buffer());
        Ok(())
    }

    pub(super) fn ping(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        let Ok(payload) = <[u8; 8]>::try_from(payload) else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        if head.stream != 0 {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        if !head.has(flag::ACK) {
            frame::ping(self.output.buffer(), flag::ACK, payload);
        } else if payload == LAST_PING && self.leaving == Leaving::Announced {
            self.leaving = Leaving::Final;
            frame::goaway(self.output.buffer(), self.last_peer, Reason::NO_ERROR);
        }
        Ok(())
    }

    pub(super) fn goaway(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        if head.stream != 0 {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        let (Some(last), Some(code)) = (payload.first_chunk::<4>(), payload.get(4..8)) else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
        let reason = Reason::from_code(code.iter().fold(0, |code, byte| code << 8 | u32::from(*byte)));
        let error = Error::GoAway(reason, Initiator::Peer);
        self.peer_left = Some(error);
        if self.role == Role::Client {
            for key in self.streams.keys() {
                let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.id > last) else { continue };
                if !stream.is_closed() {
                    stream.fail(error);
                }
                self.settle(key);
            }
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        let Ok(increment) = <[u8; 4]>::try_from(payload) else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        let increment = i64::from(u32::from_be_bytes(increment) & 0x7fff_ffff);
        if head.stream == 0 {
            self.send_window += increment;
            return match (increment, self.send_window > i64::from(MAX_WINDOW)) {
                (0, _) => Err(Violation::Connection(Reason::PROTOCOL_ERROR)),
                (_, true) => Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR)),
                _ => Ok(()),
            };
        }
        if self.is_idle(head.stream) {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        let key = self.streams.find(head.stream);
        let Some(stream) = key.and_then(|key| self.streams.get_mut(key)) else { return Ok(()) };
        if stream.is_closed() {
            return Ok(());
        }
        stream.send_window += increment;
        wake(&mut stream.writer);
        match (increment, stream.send_window > i64::from(MAX_WINDOW)) {
            (0, _) => Err(Violation::Stream(head.stream, Reason::PROTOCOL_ERROR)),
            (_, true) => Err(Violation::Stream(head.stream, Reason::FLOW_CONTROL_ERROR)),
            _ => Ok(()),
        }
    }
}

/// Priorities have no effect (RFC 9113 section 5.3); the frame has to be well-formed all the same.
pub(super) fn priority(head: FrameHead, payload: &[u8]) -> Outcome {
    if head.stream == 0 {
        return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
    }
    let Ok(priority) = <&[u8; 5]>::try_from(payload) else {
        return Err(Violation::Stream(head.stream, Reason::FRAME_SIZE_ERROR));
    };
    match dependency(priority) == head.stream {
        true => Err(Violation::Stream(head.stream, Reason::PROTOCOL_ERROR)),
        false => Ok(()),
    }
}

pub(super) fn dependency(priority: &[u8; 5]) -> u32 {
    let [a, b, c, d, _] = *priority;
    u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff
}
