//! Stub domains: how kube-dns and NodeLocal DNSCache are told, in one JSON object, whom to ask for a zone.
//!
//! The text is changed, not written anew, so that it is the same to the byte once our zones are taken out.

use std::{net::IpAddr, ops::Range};

use maesh_config::Zone;
use serde_json::{Map, Value};

/// What is left of a text that had nothing but ours: it was not there before.
const EMPTIED: &str = "{}\n";

/// Why stub domains were left as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStubs {
    /// It is not what kube-dns reads.
    #[error("is not a JSON object of lists ({0}); kube-dns ignores it as a whole. Mend it first")]
    Json(String),
    /// The zone leads elsewhere.
    #[error("zone {0} leads elsewhere already. Remove it, or take the zone out of the mesh's (--zone)")]
    Taken(String),
    /// A name stands in it twice.
    #[error("zone {0} is in it twice. Remove one of them")]
    Twice(String),
}

/// Whether all `zones` lead to `address`.
///
/// # Errors
/// If the text is not understood.
pub fn has_stubs(text: Option<&str>, zones: &[Zone], address: IpAddr) -> Result<bool, NotStubs> {
    let Some(text) = text else { return Ok(false) };
    let object = parse(text)?;
    Ok(zones.iter().all(|zone| object.get(zone.as_str()) == Some(&list(address))))
}

/// Lets `zones` lead to `address`; what was ours before is replaced.
///
/// # Errors
/// If the text is not understood, or a zone leads elsewhere.
pub fn add_stubs(text: Option<&str>, zones: &[Zone], address: IpAddr) -> Result<String, NotStubs> {
    if has_stubs(text, zones, address)? {
        return Ok(text.unwrap_or_default().to_owned());
    }
    let cleared = remove_stubs(text, zones, Some(address))?;
    let text = cleared.as_deref().unwrap_or(EMPTIED);
    let object = parse(text)?;
    if let Some(zone) = zones.iter().find(|zone| object.contains_key(zone.as_str())) {
        return Err(NotStubs::Taken(zone.to_string()));
    }
    let ours: Vec<String> = zones.iter().map(|zone| format!("\"{zone}\":{}", list(address))).collect();
    let at = text.find('{').map_or(0, |brace| brace + 1);
    let comma = if object.is_empty() { "" } else { "," };
    Ok(format!("{}{}{comma}{}", &text[..at], ours.join(","), &text[at..]))
}

/// Takes out those `zones` that are ours: they lead to `address`, or all of them to one same address, which may be one
/// that our Service had before. `None`: nothing else was in it.
///
/// # Errors
/// If the text is not understood.
pub fn remove_stubs(text: Option<&str>, zones: &[Zone], address: Option<IpAddr>) -> Result<Option<String>, NotStubs> {
    let Some(text) = text else { return Ok(None) };
    let object = parse(text)?;
    let first = zones.first().and_then(|zone| object.get(zone.as_str())).filter(|value| is_one_address(value));
    let alike = first.filter(|first| zones.iter().all(|zone| object.get(zone.as_str()) == Some(*first)));
    let ours = |name: &str| {
        let is_ours = |value: &Value| Some(value) == alike || address.is_some_and(|address| *value == list(address));
        zones.iter().any(|zone| zone.as_str() == name) && object.get(name).is_some_and(is_ours)
    };
    let mut text = text.to_owned();
    let mut found = false;
    while let Some(at) = members(&text).into_iter().find_map(|(name, at)| ours(&name).then_some(at)) {
        text.replace_range(at, "");
        found = true;
    }
    Ok((!found || text != EMPTIED).then_some(text))
}

fn is_one_address(value: &Value) -> bool {
    matches!(value.as_array().map(Vec::as_slice), Some([Value::String(one)]) if one.parse::<IpAddr>().is_ok())
}

fn list(address: IpAddr) -> Value {
    Value::Array(vec![Value::String(address.to_string())])
}

fn parse(text: &str) -> Result<Map<String, Value>, NotStubs> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| NotStubs::Json(error.to_string()))?;
    if let Some((name, _)) = object.iter().find(|(_, value)| !value.is_array()) {
        return Err(NotStubs::Json(format!("{name} is not a list")));
    }
    let mut names: Vec<String> = members(text).into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(NotStubs::Twice(pair[0].clone())),
        None => Ok(object),
    }
}

/// Names in an object that is known to be JSON, each with what to cut to be rid of it: the member and one comma.
fn members(text: &str) -> Vec<(String, Range<usize>)> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let mut ends = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                if depth == 1 {
                    ends.push(at);
                }
            }
            b'}' | b']' => {
                if depth == 1 {
                    ends.push(at);
                }
                depth -= 1;
            }
            b',' if depth == 1 => ends.push(at),
            _ => {}
        }
    }
    let last = ends.len().saturating_sub(2);
    let member = |(number, pair): (usize, &[usize])| {
        let [begin, end] = *pair else { return None };
        let member: Map<String, Value> = serde_json::from_str(&format!("{{{}}}", &text[begin + 1..end])).ok()?;
        // With the comma behind it; the last one with the comma before it. Blanks before the closing brace stay.
        let trimmed = begin + text[begin..end].trim_end().len();
        let cut = match (number == last, number) {
            (false, _) => begin + 1..end + 1,
            (true, 0) => begin + 1..trimmed,
            (true, _) => begin..trimmed,
        };
        Some((member.into_iter().next()?.0, cut))
    };
    ends.windows(2).enumerate().filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones() -> Vec<Zone> {
        ["maesh", "traefik.mesh"].map(|zone| zone.parse().expect("a zone")).to_vec()
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 53));
    const BEFORE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 9));

    #[test]
    fn stubs_are_added_once_and_taken_out_to_the_byte() {
        for before in [
            None,
            Some("{}"),
            Some("  { }\n"),
            Some("{\"acme.local\": [\"1.2.3.4\"]}\n"),
            Some("{\r\n  \"a,{\\\"\": [\"1\", \"2\"],\n\t\"b\" : []\n}"),
        ] {
            let after = add_stubs(before, &zones(), ADDRESS).unwrap();
            assert_eq!(has_stubs(Some(&after), &zones(), ADDRESS), Ok(true), "{after}");
            assert_eq!(add_stubs(Some(&after), &zones(), ADDRESS).unwrap(), after);
            let others = |text: &str| {
                let object = parse(text).unwrap();
                object.into_iter().filter(|(name, _)| !name.contains("mesh") && name != "maesh").collect::<Vec<_>>()
            };
            assert_eq!(others(&after), before.map(others).unwrap_or_default(), "{after}");
            let removed = remove_stubs(Some(&after), &zones(), Some(ADDRESS)).unwrap();
            assert_eq!(removed.as_deref(), before, "{after}");
        }
    }

    #[test]
    fn another_address_of_ours_is_replaced() {
        let old = add_stubs(Some("{\"a\": []}"), &zones(), BEFORE).unwrap();
        let new = add_stubs(Some(&old), &zones(), ADDRESS).unwrap();
        assert_eq!(new, old.replace("10.96.0.9", "10.96.0.53"));
        assert_eq!(remove_stubs(Some(&old), &zones(), None).unwrap().as_deref(), Some("{\"a\": []}"));
        // By hand, in another order, and one of the two only.
        let by_hand = "{\"a\": [], \"maesh\": [\"10.96.0.9\"]}";
        assert_eq!(remove_stubs(Some(by_hand), &zones(), Some(BEFORE)).unwrap().as_deref(), Some("{\"a\": []}"));
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        for (case, text, want) in [
            ("no JSON", "maesh: 1", "is not a JSON object"),
            ("no object", "[]", "is not a JSON object"),
            ("no list", "{\"a\": \"b\"}", "a is not a list"),
            ("taken", "{\"maesh\": [\"10.0.0.1\"]}", "zone maesh leads elsewhere"),
            ("several", "{\"maesh\": [\"10.96.0.9\", \"10.96.0.8\"]}", "zone maesh leads elsewhere"),
            ("twice", "{\"maesh\": [], \"maesh\": []}", "zone maesh is in it twice"),
        ] {
            let error = add_stubs(Some(text), &zones(), ADDRESS).expect_err(case).to_string();
            assert!(error.contains(want), "{case}: {error}");
        }
    }
}
