//! How often a request has gone through the mesh.
//!
//! The field counts proxies of the mesh on the request's way. It is there to end a loop through something that the mesh
//! does not know, such as a gateway whose configuration leads back to a mesh name. A caller can write what it likes into
//! it: a high number is refused, which harms only who wrote it; a low one, or none, lets a loop go round a few times
//! more, and the loop can only be one if nobody on its way removes the field.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    fields::{AddedFields, Present, Sought},
    reason::Reason,
};

/// The field.
static HOPS: HeaderName = HeaderName::from_static("x-maesh-hops");

/// Most proxies on the way of one request. A Service that copies all fields of a request into its own requests raises
/// the count without a loop, but chains of such Services are shorter than this.
const MOST: u8 = 16;

/// Its values.
const COUNTED: [&str; MOST as usize] =
    ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];

/// Counts this proxy in. No proxy of the mesh writes anything but a number, so whatever else is there counts as too many.
pub(super) fn count(headers: &mut HeaderMap, present: Present, added: &mut AddedFields) -> Result<(), Reason> {
    let before = if present.has(Sought::Mesh) { taken(headers) } else { 0 };
    let counted = COUNTED.get(usize::from(before)).ok_or(Reason::LoopDetected)?;
    added.push((&HOPS, HeaderValue::from_static(counted)));
    Ok(())
}

/// Removes what was counted before, and returns it.
fn taken(headers: &mut HeaderMap) -> u8 {
    let number = |value: &HeaderValue| value.to_str().ok()?.trim().parse::<u8>().ok();
    let before = headers.get_all(&HOPS).iter().map(|value| number(value).unwrap_or(u8::MAX)).max();
    headers.remove(&HOPS);
    before.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_counted_up_to_a_bound() {
        for (case, before, after) in [
            ("the first proxy", &[][..], Ok("1")),
            ("the second", &["1"], Ok("2")),
            ("the last", &["15"], Ok("16")),
            ("one too many", &["16"], Err(Reason::LoopDetected)),
            ("a large number", &["255"], Err(Reason::LoopDetected)),
            ("two fields", &["3", "7"], Ok("8")),
            ("no number", &["many"], Err(Reason::LoopDetected)),
            ("nothing", &[""], Err(Reason::LoopDetected)),
            ("several in one", &["1, 2"], Err(Reason::LoopDetected)),
            ("more than is counted", &["256"], Err(Reason::LoopDetected)),
            ("a number beside none", &["1", "x"], Err(Reason::LoopDetected)),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(&HOPS, HeaderValue::from_static(value));
            }
            let (present, mut added) = (Present::of(&headers), AddedFields::new());
            let counted = count(&mut headers, present, &mut added);
            assert_eq!(counted.map(|()| added[0].1.to_str().expect("text")), after, "{case}");
            assert!(!headers.contains_key(&HOPS), "{case}");
        }
    }
}
