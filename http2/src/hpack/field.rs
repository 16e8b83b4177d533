//! Fields of a header block, parsed once and cloned from then on.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::well_known;

/// One field of a header block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Method(Method),
    Scheme(Bytes),
    Authority(Bytes),
    Path(Bytes),
    Protocol(Bytes),
    Status(StatusCode),
    /// The value is marked as sensitive if its sender forbade to keep it in a table (RFC 7541 section 7.1.3).
    Header(HeaderName, HeaderValue),
    /// A name or value that HTTP does not allow, a capital letter in a name, an unknown pseudo-header field, or a
    /// method or status that is none.
    Malformed,
}

/// A field's name. A table keeps it also of a malformed field: another one may refer to it.
#[derive(Clone, Debug)]
pub(super) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
    Header(HeaderName),
    /// Not a name; how long it is.
    Bad(usize),
}

impl Name {
    pub(super) fn parse(name: &[u8]) -> Self {
        let Some(b':') = name.first() else {
            if let Some(known) = well_known::name(name) {
                return Self::Header(known);
            }
            // `HeaderName` would take capital letters for small ones.
            let capital = name.iter().any(u8::is_ascii_uppercase);
            return match HeaderName::from_bytes(name) {
                Ok(name) if !capital => Self::Header(name),
                _ => Self::Bad(name.len()),
            };
        };
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":status" => Self::Status,
            _ => Self::Bad(name.len()),
        }
    }

    /// The name of a field that is not malformed.
    pub(super) fn of(field: &Field) -> Self {
        match field {
            Field::Method(_) => Self::Method,
            Field::Scheme(_) => Self::Scheme,
            Field::Authority(_) => Self::Authority,
            Field::Path(_) => Self::Path,
            Field::Protocol(_) => Self::Protocol,
            Field::Status(_) => Self::Status,
            Field::Header(name, _) => Self::Header(name.clone()),
            Field::Malformed => Self::Bad(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Method => ":method".len(),
            Self::Scheme => ":scheme".len(),
            Self::Authority => ":authority".len(),
            Self::Path => ":path".len(),
            Self::Protocol => ":protocol".len(),
            Self::Status => ":status".len(),
            Self::Header(name) => name.as_str().len(),
            Self::Bad(length) => *length,
        }
    }

    /// The field with a copy of `value`, or the name back if that is malformed.
    pub(super) fn with(self, value: &[u8]) -> Result<Field, Self> {
        let text = || is_value(value).then(|| Bytes::copy_from_slice(value));
        let field = match &self {
            Self::Method => Method::from_bytes(value).ok().map(Field::Method),
            Self::Scheme => text().map(Field::Scheme),
            Self::Authority => text().map(Field::Authority),
            Self::Path => text().map(Field::Path),
            Self::Protocol => text().map(Field::Protocol),
            Self::Status => StatusCode::from_bytes(value).ok().map(Field::Status),
            Self::Header(_) | Self::Bad(_) => None,
        };
        match (field, self) {
            (Some(field), _) => Ok(field),
            (None, Self::Header(name)) => match HeaderValue::from_bytes(value) {
                Ok(value) => Ok(Field::Header(name, value)),
                Err(_) => Err(Self::Header(name)),
            },
            (None, name) => Err(name),
        }
    }
}

/// Whether `value` is what [`HeaderValue`] would accept.
fn is_value(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, &byte| bad | (byte < b' ' && byte != b'\t') | (byte == 0x7f))
}
