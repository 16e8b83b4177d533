use proptest::prelude::*;

use super::*;

/// How much is let in, and what the state is then.
fn followed(bytes: &[u8]) -> (usize, u32, u32, TrackerState) {
    let mut framing = RequestTracker::new();
    let passed = framing.pass(bytes);
    (passed, framing.heads, framing.malformed, framing.state)
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn requests_are_followed_to_their_end() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (case, bytes, heads, state) in [
        ("a request", get.to_owned(), 1, TrackerState::RequestLine),
        ("empty lines first", format!("\r\n\n{get}"), 1, TrackerState::RequestLine),
        ("lines that end with LF", "GET / HTTP/1.1\nHost: a\n\nGET".into(), 1, TrackerState::RequestLine),
        ("a head that is not complete", "GET / HTTP/1.1\r\nHost: a\r\n".into(), 0, TrackerState::Fields),
        ("a length", "PUT / HTTP/1.1\r\ncontent-LENGTH: \t3 \r\n\r\n\n\n".into(), 1, TrackerState::Body(1)),
        ("chunks", format!("{POST}3;a=b\r\n\n\n\n\r\n0\r\nX: y\r\n\r\n"), 1, TrackerState::RequestLine),
        ("chunks that go on", format!("{POST}a\r\n01234"), 1, TrackerState::Data(5)),
        ("no chunks", format!("{POST}00\r\n\r\n{get}"), 2, TrackerState::RequestLine),
        (
            "chunks and a length",
            format!("{}0", POST.replace("Host: a", "Content-Length: 9")),
            1,
            TrackerState::Size(0, 1),
        ),
        ("upgrade", "GET / HTTP/1.1\r\nUPGRADE: x\r\n\r\n".into(), 1, TrackerState::Undecided),
    ] {
        assert_eq!(followed(bytes.as_bytes()), (bytes.len(), heads, 0, state), "{case}");
    }
}

#[test]
fn what_is_malformed_is_not_let_in() {
    for (case, body, bad) in [
        ("a size without digits", "\r\n", 0),
        ("a sign", "-1\r\n", 0),
        ("17 digits", "00000000000000001\r\n", 16),
        ("LF after the size", "1\n", 1),
        ("CR and more after the size", "1\rx", 2),
        ("LF in an extension", "1;a\n", 3),
        ("CR in an extension", "1;a\rb", 4),
        ("LF after the data", "1\r\nx\n", 4),
        ("LF in a trailer", "0\r\nX: y\n", 7),
        ("CR in a trailer", "0\r\nX\ry", 5),
        ("an empty line of LF", "0\r\n\n", 3),
        ("a folded trailer", "0\r\nX\r\n y", 6),
    ] {
        let bytes = format!("{POST}{body}");
        assert_eq!(followed(bytes.as_bytes()), (POST.len() + bad, 1, 0, TrackerState::Refused), "{case}");
    }
}

#[test]
fn a_malformed_head_is_the_last_that_is_let_in() {
    for head in [
        "GET /#f HTTP/1.1\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length:\r\n\r\n",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\n\r\n{head}more");
        assert_eq!(followed(bytes.as_bytes()), (bytes.len() - 4, 2, 2, TrackerState::Refused), "{head}");
    }
}

proptest! {
    /// It does not matter in which pieces bytes arrive.
    #[test]
    fn pieces_change_nothing(
        parts in prop::collection::vec(prop::sample::select(&[
            "GET / HTTP/1.1", "\r\n", "\n", "\r", "\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked", "5",
            "0\r\n", "hello", "X: y", "Upgrade: z", ";a=b", "#", " ", POST, "5\r\nhello\r\n", "0\r\n\r\n",
        ][..]), 0..24),
        cuts in prop::collection::vec(0_usize..200, 0..12),
    ) {
        let bytes = parts.concat().into_bytes();
        let whole = followed(&bytes);
        let mut framing = RequestTracker::new();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let mut passed = 0;
        for cut in cuts.windows(2) {
            passed += framing.pass(&bytes[cut[0]..cut[1]]);
        }
        prop_assert_eq!((passed, framing.heads, framing.malformed, framing.state), whole);
    }
}
