//! What an older version does with a field that it does not know.
//!
//! Whoever adds a field to a route or to the policy of a backend decides that by its number. Below [`MUST_UNDERSTAND`] an
//! older version skips the field: it does without a preference. From there on an older version must not act as if the
//! field were not there: without access control, say, or with another protocol. It refuses that route or that backend, and
//! serves everything else of the Service.

use bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};

/// Fields from this number on must be understood.
const MUST_UNDERSTAND: u32 = 64;

/// The first field of a message that must be understood and is none of `understood`, by its number.
pub(crate) fn not_understood(mut message: &[u8], understood: &[u32]) -> Result<Option<u32>, prost::DecodeError> {
    while message.has_remaining() {
        let (number, wire_type) = decode_key(&mut message)?;
        if number >= MUST_UNDERSTAND && !understood.contains(&number) {
            return Ok(Some(number));
        }
        skip_field(wire_type, number, &mut message, DecodeContext::default())?;
    }
    Ok(None)
}
