//! How far the proxy follows the requests of a connection: the same however it is cut.

#[allow(dead_code)]
#[path = "../../../../proxy/src/http/server/h1"]
mod h1 {
    pub(super) mod framing;
}

use self::h1::framing::RequestTracker;
use crate::cut::cut;

/// Follows `stream` at once, and cut: what is let in is the same, and what is known after it.
pub(crate) fn cuts_do_not_matter(stream: &[u8], seed: u8) {
    let mut whole = RequestTracker::new();
    let passed = follow(&mut whole, stream);
    let (mut cut_up, mut passed_cut_up) = (RequestTracker::new(), 0);
    for segment in cut(stream, seed) {
        let before = passed_cut_up;
        passed_cut_up += follow(&mut cut_up, segment);
        if passed_cut_up < before + segment.len() {
            break;
        }
    }
    assert_eq!(passed_cut_up, passed, "let in");
    let known =
        |it: &RequestTracker| (it.is_refused(), it.is_within_head(), it.unfinished(), it.left(), it.malformed());
    assert_eq!(known(&cut_up), known(&whole));
}

/// Lets in what is let in, where every request to leave HTTP is answered at once, and declined.
fn follow(tracker: &mut RequestTracker, bytes: &[u8]) -> usize {
    let mut passed = 0;
    loop {
        passed += tracker.pass(&bytes[passed..]);
        assert!(passed <= bytes.len());
        if tracker.undecided().is_none() {
            assert!(passed == bytes.len() || tracker.is_refused());
            return passed;
        }
        tracker.decide();
    }
}
