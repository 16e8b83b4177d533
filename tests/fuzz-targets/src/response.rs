//! Responses of endpoints: read the same however they are cut into segments, and never beyond their end.
//!
//! The first byte says whether the request was a HEAD, the second one where the rest is cut.

use maesh_proxy::{Response, read_response};

pub(crate) fn run(bytes: &[u8]) {
    let [kind, step, response @ ..] = bytes else { return };
    let to_head = kind & 1 == 1;
    let whole = read_response(&[response], to_head);
    let pieces: Vec<&[u8]> = response.chunks(usize::from(*step).max(1)).collect();
    assert_eq!(read_response(&pieces, to_head), whole);
    let Response::Complete { status, fields, body, left, reusable, .. } = whole else { return };
    assert!(body.len() + left < response.len());
    assert!(!reusable || left == 0);
    assert!(!(to_head || status == 204 || status == 304) || body.is_empty());
    let lengths: Vec<&[u8]> =
        fields.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| &value[..]).collect();
    assert!(lengths.len() <= 1);
    assert!(fields.iter().all(|(name, _)| name != "transfer-encoding"));
    if let (Some(length), false) = (lengths.first(), to_head || status == 304) {
        assert_eq!(*length, body.len().to_string().as_bytes(), "what the caller is told is what follows");
    }
}
