//! Why bytes from the wire cannot be understood, and the small readers that all messages share.

use crate::ServiceName;

/// Why the bytes of a resource say nothing to this version of the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no message of this kind.
    #[error("it is not readable: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// An enumerated field has a value that only newer versions know.
    #[error("{field} has the value {value}, which this version does not know; update the role that says so")]
    Unknown {
        /// The field's name.
        field: &'static str,
        /// Its number on the wire.
        value: i32,
    },
    /// A field's value cannot be: a port above 65535, an address of five bytes, a name without namespace.
    #[error("{field} is missing or impossible")]
    Impossible {
        /// The field's name.
        field: &'static str,
    },
    /// The resource describes something else than the name under which it came.
    #[error("it describes {inside:?} instead")]
    Misnamed {
        /// Name that its content gives it.
        inside: String,
    },
}

pub(crate) fn impossible(field: &'static str) -> DecodeError {
    DecodeError::Impossible { field }
}

pub(crate) fn port(number: u32, field: &'static str) -> Result<u16, DecodeError> {
    number.try_into().map_err(|_| impossible(field))
}

pub(crate) fn service_name(text: &str, field: &'static str) -> Result<ServiceName, DecodeError> {
    text.parse().map_err(|_| impossible(field))
}
