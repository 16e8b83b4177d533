//! What the fields of a response say about the length of its body.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::ProtocolError;

/// The length that the fields of a response say. Equal ones are made one; different or malformed ones are an error. A
/// response that may say none (RFC 9110 section 8.6) loses it.
pub(super) fn content_length(headers: &mut HeaderMap, status: StatusCode) -> Result<Option<u64>, ProtocolError> {
    let length = normalised(headers)?;
    if length.is_some() && (status == StatusCode::NO_CONTENT || status.is_informational()) {
        headers.remove(header::CONTENT_LENGTH);
    }
    Ok(length)
}

fn normalised(headers: &mut HeaderMap) -> Result<Option<u64>, ProtocolError> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    // The usual form is kept. Any other form is replaced by it below.
    let plain = first.as_bytes();
    if values.next().is_none() && !plain.contains(&b',') && (plain.len() == 1 || !plain.starts_with(b"0")) {
        return digits(plain).map(Some).ok_or(ProtocolError::ContentLength);
    }
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for one in value.as_bytes().split(|byte| *byte == b',') {
            let one = digits(one.trim_ascii()).ok_or(ProtocolError::ContentLength)?;
            if length.is_some_and(|length| length != one) {
                return Err(ProtocolError::ContentLength);
            }
            length = Some(one);
        }
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
