//! Values as YAML, for people who read and scripts that parse.
//!
//! Only what no reader of YAML could take for something else stands there as it is. Every other text is in double quotes as in
//! JSON, so that nothing in it commands a terminal.

use serde_json::Value;

use crate::terminal::printable_json;

/// Words that a reader of YAML may take for something else than text.
const WORDS: [&str; 12] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"];

/// `value` as one document.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (number, (name, value)) in fields.iter().enumerate() {
                indent(if number == 0 { 0 } else { depth }, out);
                out.push_str(&text(name));
                out.push(':');
                nested(value, depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (number, item) in items.iter().enumerate() {
                indent(if number == 0 { 0 } else { depth }, out);
                out.push_str("- ");
                block(item, depth + 1, out);
            }
        }
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

/// What stands behind the name of a field.
fn nested(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            indent(depth + 1, out);
            block(value, depth + 1, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            indent(depth, out);
            block(value, depth, out);
        }
        other => {
            out.push(' ');
            block(other, depth, out);
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    (0..depth).for_each(|_| out.push_str("  "));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(written) => text(written),
        // Numbers, `true`, `null`, `{}` and `[]` are the same in JSON.
        other => other.to_string(),
    }
}

fn text(written: &str) -> String {
    if is_plain(written) {
        return written.to_owned();
    }
    printable_json(&Value::from(written).to_string()).into_owned()
}

/// Whether `written` means itself without quotes: a word that begins with a letter, of letters, digits and what names have
/// between them.
fn is_plain(written: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    written.starts_with(|c: char| c.is_ascii_alphabetic())
        && written.chars().all(inner)
        && !WORDS.iter().any(|word| written.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_for_people() {
        let value = json!({
            "services": [
                { "name": "web.shop.maesh", "address": null, "bypass": false, "ports": [{ "port": 80 }, { "port": 81 }] },
                { "name": "on", "ports": [] },
            ],
            "nested": { "list": [["a", 1], {}], "text": "a: b" },
        });
        let want = "\
nested:
  list:
  - - a
    - 1
  - {}
  text: \"a: b\"
services:
- address: null
  bypass: false
  name: web.shop.maesh
  ports:
  - port: 80
  - port: 81
- name: \"on\"
  ports: []
";
        assert_eq!(document(&value), want);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "",
            " ",
            "a",
            "a b",
            "1",
            "1.5",
            "0x1f",
            "-",
            "- a",
            "~",
            "null",
            "True",
            "NO",
            "y",
            "=",
            "a:",
            "a: b",
            "#",
            "a #b",
            "'",
            "\"",
            "a\"b",
            "\\",
            "\n",
            "a\nb\n",
            "\t",
            "\u{1b}[2J",
            "\u{9b}",
            "\u{202e}x",
            "\u{85}",
            "\u{2028}",
            "ä",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a`",
            "{a}",
            "[a]",
            "|",
            ">",
            "?",
            "a,b",
            "2026-01-01",
            "12:30",
            ".nan",
            ".inf",
            "é\u{feff}",
            "maesh.containo.us/routes",
        ] {
            let value = json!({ "list": [text, { text: text }], "text": text });
            let written = document(&value);
            let read: Value = serde_saphyr::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
            assert_eq!(read, value, "{written}");
            assert!(written.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{written:?}");
        }
        let scalars = json!([null, true, 1, -1.5, u64::MAX, [], {}]);
        assert_eq!(serde_saphyr::from_str::<Value>(&document(&scalars)).unwrap(), scalars);
    }
}
