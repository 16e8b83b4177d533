//! What our chart takes for the values that keep their form. `below` is the path within such a value.

use serde_json::Value;

/// A DNS domain in lower case.
pub fn is_domain(below: &[&str], value: &Value) -> bool {
    below.is_empty() && value.as_str().is_some_and(|text| text.split('.').all(is_label))
}

/// Lower-case letters, digits and hyphens within.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Protocol of a port that does not say its own.
pub fn is_mode(below: &[&str], value: &Value) -> bool {
    below.is_empty() && ["http", "tcp", "udp"].iter().any(|mode| value == mode)
}

/// A list of names.
pub fn are_namespaces(below: &[&str], value: &Value) -> bool {
    let is_name = |name: &Value| name.as_str().is_some_and(|name| name.len() <= 63 && is_label(name));
    below.is_empty() && value.as_array().is_some_and(|names| names.iter().all(is_name))
}

/// On or off.
pub fn is_truth(below: &[&str], value: &Value) -> bool {
    below.is_empty() && value.is_boolean()
}

/// One text of a map of texts.
pub fn is_text_of_key(below: &[&str], value: &Value) -> bool {
    below.len() == 1 && value.is_string()
}

/// A list of tolerations.
pub fn are_tolerations(below: &[&str], value: &Value) -> bool {
    let is_field = |(key, value): (&String, &Value)| match &**key {
        "operator" => ["Exists", "Equal"].iter().any(|operator| value == operator),
        "effect" => ["NoSchedule", "PreferNoSchedule", "NoExecute"].iter().any(|effect| value == effect),
        "tolerationSeconds" => value.is_i64(),
        other => matches!(other, "key" | "value") && value.is_string(),
    };
    let is_one = |one: &Value| one.as_object().is_some_and(|fields| fields.iter().all(is_field));
    below.is_empty() && value.as_array().is_some_and(|all| all.iter().all(is_one))
}

/// A part of one of the three kinds of affinity. What it says is for the API server to check.
pub fn is_affinity(below: &[&str], _: &Value) -> bool {
    below.len() > 1 && ["nodeAffinity", "podAffinity", "podAntiAffinity"].contains(&below[0])
}
