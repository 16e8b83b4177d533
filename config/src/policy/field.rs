//! Names of fields and cookies that policies look at.

use std::sync::Arc;

/// Longest name.
const LONGEST: usize = 128;

/// A text that is not what was asked for: a word of a list, or one with the name of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a field")]
pub struct BadFieldName;

/// The name of a header field, in lower case (RFC 9110 section 5.1).
///
/// # Errors
/// When it is no token, or longer than 128 bytes.
pub(super) fn field_name(text: &str) -> Result<Arc<str>, BadFieldName> {
    if is_token(text) { Ok(text.to_ascii_lowercase().into()) } else { Err(BadFieldName) }
}

/// The name of a cookie, which has upper and lower case (RFC 6265 section 4.1.1).
///
/// # Errors
/// When it is no token, or longer than 128 bytes.
pub(super) fn cookie_name(text: &str) -> Result<Arc<str>, BadFieldName> {
    if is_token(text) { Ok(text.into()) } else { Err(BadFieldName) }
}

fn is_token(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, field, cookie) in [
            ("X-User", Some("x-user"), Some("X-User")),
            ("a", Some("a"), Some("a")),
            ("", None, None),
            ("a b", None, None),
            ("a=b", None, None),
            ("a:b", None, None),
            ("ü", None, None),
        ] {
            assert_eq!(field_name(text).as_deref().ok(), field, "{text:?}");
            assert_eq!(cookie_name(text).as_deref().ok(), cookie, "{text:?}");
        }
        assert!(field_name(&"a".repeat(129)).is_err());
    }
}
