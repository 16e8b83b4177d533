//! How connections and streams end.

use super::{Connection, LAST_PING, Leaving, MOST_WAITING, Role, STREAM_ERRORS};
use crate::{
    error::{Error, Initiator, Reason, Violation},
    frame, settings,
    stream::wake,
    streams::Key,
};

impl Connection {
    /// The peer has closed the connection, or it is lost: everything ends.
    pub(crate) fn lost(&mut self) {
        self.end(Error::Closed);
    }

    /// Ends everything with `error`.
    pub(super) fn end(&mut self, error: Error) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(error);
        for key in self.streams.keys() {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.fail(error);
            }
            self.settle(key);
        }
        self.accept.clear();
        wake(&mut self.driver);
    }

    /// Ends the connection at once, and says why.
    pub(crate) fn abort(&mut self, reason: Reason, initiator: Initiator) {
        if self.ended.is_none() {
            frame::goaway(self.output.buffer(), self.last_peer, reason);
            self.end(Error::GoAway(reason, initiator));
        }
    }

    /// Asks the peer to open no more streams, serves those that it has opened, and ends.
    pub(crate) fn leave(&mut self) {
        if self.leaving == Leaving::No && self.ended.is_none() {
            self.leaving = Leaving::Announced;
            // Streams that were opened before the peer knew are still served (RFC 9113 section 6.8).
            frame::goaway(self.output.buffer(), settings::MAX_WINDOW, Reason::NO_ERROR);
            frame::ping(self.output.buffer(), 0, LAST_PING);
            self.wrote();
        }
    }

    /// Answers what the peer did wrong.
    pub(super) fn answer(&mut self, violation: Violation) {
        match violation {
            Violation::Connection(reason) => self.abort(reason, Initiator::Protocol),
            Violation::Stream(id, reason) => {
                self.stream_errors += 1;
                if self.stream_errors > STREAM_ERRORS {
                    return self.abort(Reason::ENHANCE_YOUR_CALM, Initiator::Protocol);
                }
                match self.streams.find(id) {
                    Some(key) => self.reset(key, reason, Error::Reset(reason, Initiator::Protocol)),
                    None => {
                        frame::rst_stream(self.output.buffer(), id, reason);
                        self.streams.remember_reset(id);
                    }
                }
            }
        }
        if self.output.len() > MOST_WAITING {
            self.output.clear();
            self.abort(Reason::ENHANCE_YOUR_CALM, Initiator::Protocol);
        }
    }

    /// Resets a stream, unless it is over.
    pub(crate) fn reset(&mut self, key: Key, reason: Reason, error: Error) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !stream.is_closed() {
            let id = stream.id;
            stream.fail(error);
            frame::rst_stream(self.output.buffer(), id, reason);
            self.streams.remember_reset(id);
            self.wrote();
        }
        self.settle(key);
    }

    /// Forgets a stream as far as it is over.
    pub(super) fn settle(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !stream.is_closed() {
            return;
        }
        let is_counted = std::mem::take(&mut stream.is_counted);
        let ended_well = stream.failed.is_none();
        let is_waiting = std::mem::take(&mut stream.is_waiting);
        if !stream.has_reader {
            self.drop_data(key);
        }
        let Some(stream) = self.streams.get(key) else { return };
        let is_held = stream.has_reader || stream.has_writer;
        if !is_held {
            self.streams.remove(key);
        }
        if is_counted {
            self.open -= 1;
            if ended_well {
                // A connection may last for years: what is rare must not add up.
                self.stream_errors = self.stream_errors.saturating_sub(1);
            }
            if self.open == 0 && self.is_done() {
                wake(&mut self.driver);
            }
        }
        if is_waiting {
            self.waiting.retain(|waiting| *waiting != key);
            // Its turn is another one's.
            if !self.waiting.is_empty() {
                wake(&mut self.driver);
            }
        }
    }

    /// Drops what has arrived on a stream that nobody reads, and lets the peer send as much on others.
    pub(super) fn drop_data(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let held = stream.window.held();
        stream.data = Default::default();
        stream.trailers = None;
        stream.window.release(held);
        self.release_connection(held);
    }

    pub(super) fn release_connection(&mut self, bytes: usize) {
        if let Some(increment) = self.window.release(bytes) {
            frame::window_update(self.output.buffer(), 0, increment);
            self.wrote();
        }
    }

    /// Resets a stream that nobody cares for. A server that has answered wants no more of the request, and that is no error
    /// (RFC 9113 section 8.1).
    pub(super) fn abandon(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key) else { return };
        let reason = if self.role == Role::Server && stream.sent_all { Reason::NO_ERROR } else { Reason::CANCEL };
        self.reset(key, reason, Error::Reset(reason, Initiator::Program));
    }
}
