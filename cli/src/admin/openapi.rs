//! The document of the status API: the page of the reference, as the JSON that tools read.

use serde_json::Value;

/// The page. One for all roles: it says of each path who has it.
const PAGE: &str = include_str!("../../../docs/reference/status-api.yaml");

/// The document. Seldom asked for, so it is read anew each time and not kept.
pub(super) fn document() -> Result<Value, String> {
    serde_saphyr::from_str(PAGE).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_referred_to_is_there() {
        let document = document().expect("a document");
        assert_eq!(document["openapi"], "3.1.0");
        let (mut rest, mut count) = (vec![&document], 0);
        while let Some(value) = rest.pop() {
            match value {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        match value.as_str().filter(|_| name == "$ref") {
                            Some(to) => {
                                let pointer = to.strip_prefix('#').expect("a place in the document");
                                assert!(document.pointer(pointer).is_some(), "{to}");
                                count += 1;
                            }
                            None => rest.push(value),
                        }
                    }
                }
                Value::Array(items) => rest.extend(items),
                _ => {}
            }
        }
        assert!(count > 100, "{count}");
    }
}
