//! What a caller reads.

/// A response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// What the endpoint counted the request as; `None` for an answer of the mesh.
    pub(super) number: Option<u64>,
}

/// The whole responses in `bytes`, without those that only ask to go on. `is_head`: whether the request with this place was a
/// HEAD; `None` where there is none that could be read, whose answer is the last.
pub(super) fn answers(bytes: &[u8], is_head: impl Fn(usize) -> Option<bool>) -> Vec<Answer> {
    let (mut answers, mut rest) = (Vec::new(), bytes);
    while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = std::str::from_utf8(&rest[..end]).expect("a head of the mesh or of the endpoint");
        rest = &rest[end + 4..];
        let mut lines = head.split("\r\n");
        let status = status(lines.next().unwrap_or_default());
        assert_ne!(status, 101, "the endpoint agreed to nothing");
        if status == 100 {
            continue;
        }
        let field = |wanted: &str| lines.clone().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(": "));
        assert_eq!(field("transfer-encoding"), None);
        let number = field("x-number").map(|number| number.parse().expect("a number"));
        let length = field("content-length").map_or(0, |length| length.parse().expect("a length"));
        let without_body = is_head(answers.len());
        answers.push(Answer { status, number });
        let Some(without_body) = without_body else { return answers };
        match rest.split_at_checked(if without_body { 0 } else { length }) {
            Some((_, after)) => rest = after,
            None => return answers,
        }
    }
    answers
}

fn status(line: &str) -> u16 {
    let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
    status.unwrap_or_else(|| panic!("{line:?} is no answer"))
}
