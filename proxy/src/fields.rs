//! Values of fields that came by HTTP/2.
//!
//! HTTP/1.1 has no way to say that a value begins or ends with space, and HTTP/2 forbids it (RFC 9113 section 8.2.1), but
//! the `h2` crate lets it through. It is removed rather than refused: gRPC allows to remove it from metadata, and texts
//! of errors end with a space now and then.

use http::{HeaderMap, HeaderValue};

/// Removes the space around values.
pub(crate) fn trim(fields: &mut HeaderMap) {
    for value in fields.values_mut() {
        let bytes = value.as_bytes();
        let is_padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if is_padded(bytes.first()) || is_padded(bytes.last()) {
            // A part of a valid value is a valid value.
            if let Ok(trimmed) = HeaderValue::from_bytes(bytes.trim_ascii()) {
                *value = trimmed;
            }
        }
    }
}
