//! The names in a query of Prometheus. Prometheus itself judges whether a query can be read; this finds only which metrics
//! and labels it names.

use std::collections::BTreeSet;

/// Words with a meaning of their own, besides functions.
const KEYWORDS: [&str; 12] =
    ["and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right", "atan2"];

/// Words before a list of labels.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// What a query names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) metrics: BTreeSet<String>,
    pub(crate) labels: BTreeSet<String>,
}

/// Reads a query that Prometheus can read.
pub(crate) fn names(query: &str) -> Names {
    let words = words(query);
    let mut names = Names::default();
    let (mut in_labels, mut in_selector) = (false, false);
    for (at, word) in words.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |at| &words[at]);
        match word.as_str() {
            "{" => in_selector = true,
            "}" => in_selector = false,
            "(" => in_labels = BEFORE_LABELS.contains(&before),
            ")" => in_labels = false,
            word if !word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') => {}
            word if in_labels || in_selector => drop(names.labels.insert(word.to_owned())),
            word if KEYWORDS.contains(&word) => {}
            // A function, or an aggregation: `sum (x)`, `sum by (l) (x)`.
            _ if words.get(at + 1).is_some_and(|next| next == "(" || BEFORE_LABELS.contains(&next.as_str())) => {}
            word => drop(names.metrics.insert(word.to_owned())),
        }
    }
    names
}

/// Its words and brackets, without texts and ranges.
fn words(query: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' | '`' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            _ if first.is_ascii_alphanumeric() || first == '_' => {
                let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_:.".contains(c))).unwrap_or(rest.len());
                words.push(rest[..word].to_owned());
                word
            }
            '(' | ')' | '{' | '}' => {
                words.push(first.to_string());
                1
            }
            _ => first.len_utf8(),
        };
        rest = &rest[length..];
    }
    words
}

#[test]
fn chart_queries_are_taken_apart() {
    for (query, metrics, labels) in [
        ("absent(up)", &["up"][..], &[][..]),
        ("sum by (namespace, service) (rate(a_total[2m]))", &["a_total"], &["namespace", "service"]),
        ("sum(rate(a_total{rcode=\"SERV{FAIL\",x!~`y(`}[5m])) by (z) > 0", &["a_total"], &["rcode", "x", "z"]),
        ("max(a) < bool on (pod) group_left () max(b offset 5m)", &["a", "b"], &["pod"]),
        ("histogram_quantile(0.99, sum by (le) (a_bucket)) unless b", &["a_bucket", "b"], &["le"]),
    ] {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(names(query), Names { metrics: owned(metrics), labels: owned(labels) }, "{query}");
    }
}
