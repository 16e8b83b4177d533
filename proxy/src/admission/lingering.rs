//! Connections that were refused and are not closed yet.
//!
//! Whoever sends a request to a closed connection gets a reset, and may lose the answer that says why. So a refused
//! connection stays open for a moment after its answer. There are a bounded number of them: the oldest one is closed for
//! a new one.

use std::{
    collections::VecDeque,
    net::TcpStream,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long a refused connection stays open: as long as a caller that is there needs to read its answer.
const TIME: Duration = Duration::from_secs(1);

/// Refused connections, the oldest first.
pub(crate) struct Lingering {
    most: usize,
    streams: Mutex<VecDeque<(Instant, TcpStream)>>,
}

impl Lingering {
    /// None, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, streams: Mutex::default() }
    }

    /// Keeps `stream` open for a moment from `now` on.
    pub(crate) fn add(&self, stream: TcpStream, now: Instant) {
        let mut streams = self.streams.lock();
        while streams.len() >= self.most.max(1) {
            streams.pop_front();
        }
        streams.push_back((now, stream));
    }

    /// Closes those whose time is over.
    pub(crate) fn expire(&self, now: Instant) {
        let mut streams = self.streams.lock();
        while streams.front().is_some_and(|(since, _)| now.duration_since(*since) >= TIME) {
            streams.pop_front();
        }
    }

    /// Closes all of them: the process has no file left.
    pub(crate) fn clear(&self) {
        self.streams.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read as _},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn the_oldest_makes_room_and_none_stays_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let (lingering, begin) = (Lingering::new(2), Instant::now());
        let mut peers = Vec::new();
        for second in 0..3 {
            peers.push(TcpStream::connect(address).expect("connected"));
            lingering.add(listener.accept().expect("accepted").0, begin + TIME / 4 * second);
        }
        assert_eq!(peers[0].read(&mut [0]).expect("an end"), 0, "the oldest made room");
        lingering.expire(begin + TIME);
        lingering.expire(begin + TIME + TIME / 4);
        assert_eq!(peers[1].read(&mut [0]).expect("an end"), 0, "its time is over");
        peers[2].set_nonblocking(true).expect("set");
        assert_eq!(peers[2].read(&mut [0]).expect_err("open").kind(), ErrorKind::WouldBlock);
        lingering.clear();
        peers[2].set_nonblocking(false).expect("set");
        assert_eq!(peers[2].read(&mut [0]).expect("an end"), 0);
    }
}
