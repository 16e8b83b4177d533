//! Annotations to add to Services, and how they are written.
//!
//! As commands of `kubectl annotate`, which touch nothing else and refuse to overwrite. Objects with annotations alone are to be
//! copied from: `kubectl apply`, with `--server-side` too, takes over a Service that was applied before, and what stands not in
//! such an object for removed.

use std::{collections::BTreeMap, fmt::Write as _};

use maesh_compiler::diagnostic::escaped;
use serde::Serialize;
use serde_json::Value;

use crate::terminal::{printable, printable_json};

/// What stands above the commands.
const COMMANDS: &str = "\
# Annotations for this mesh, to look at and run with sh. No command overwrites an annotation that is there.
set -e
";

/// What stands above the objects.
const OBJECTS: &str = "\
# Annotations for this mesh, to copy into your manifests. Do not apply these objects: kubectl would take the rest of each
# Service for removed.
";

/// What stands there instead.
const NOTHING: &str = "# No annotation has to be added.\n";

/// Annotations to add to a Service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePatch {
    api_version: &'static str,
    kind: &'static str,
    /// Which Service, and its annotations.
    pub metadata: PatchMetadata,
    /// What they replace, a line each.
    #[serde(skip)]
    pub comments: Vec<String>,
}

/// The only part of the Service that is written.
#[derive(Clone, Debug, Serialize)]
pub struct PatchMetadata {
    pub name: String,
    pub namespace: String,
    pub annotations: BTreeMap<String, String>,
}

impl ServicePatch {
    /// Nothing to add yet.
    pub fn new(namespace: &str, name: &str) -> Self {
        let metadata = PatchMetadata { name: name.into(), namespace: namespace.into(), annotations: BTreeMap::new() };
        Self { api_version: "v1", kind: "Service", metadata, comments: Vec::new() }
    }

    /// Adds an annotation.
    pub fn add(&mut self, key: String, value: String) {
        self.metadata.annotations.insert(key, value);
    }

    /// Takes an annotation back, with its comment.
    pub fn take(&mut self, key: &str) -> Option<String> {
        self.comments.retain(|comment| !comment.starts_with(&format!("{key} for ")));
        self.metadata.annotations.remove(key)
    }

    /// The same with all whose keys are like this.
    pub fn take_all(&mut self, is: impl Fn(&str) -> bool) {
        let keys: Vec<String> = self.metadata.annotations.keys().filter(|key| is(key)).cloned().collect();
        for key in keys {
            self.take(&key);
        }
    }
}

/// The annotations as commands for a POSIX shell. `kubectl` is the program with the flags that choose the cluster.
pub fn commands(objects: &[ServicePatch], kubectl: &[String]) -> String {
    if objects.is_empty() {
        return NOTHING.to_owned();
    }
    let kubectl = kubectl.iter().map(|word| shell(word)).collect::<Vec<_>>().join(" ");
    let mut out = COMMANDS.to_owned();
    for object in objects {
        out.push('\n');
        for comment in &object.comments {
            out += &format!("# {}\n", escaped(comment));
        }
        let PatchMetadata { name, namespace, annotations } = &object.metadata;
        out += &format!("{kubectl} -n {} annotate service {}", shell(namespace), shell(name));
        for (key, value) in annotations {
            out += &format!(" \\\n  {}={}", shell(key), shell(value));
        }
        out.push('\n');
    }
    out
}

/// A word of a POSIX shell, which takes nothing between single quotes for anything else.
fn shell(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// The objects as YAML.
pub fn yaml(objects: &[ServicePatch]) -> String {
    if objects.is_empty() {
        return NOTHING.to_owned();
    }
    let mut out = OBJECTS.to_owned();
    for object in objects {
        out += "---\n";
        for comment in &object.comments {
            out += &format!("# {}\n", escaped(comment));
        }
        let PatchMetadata { name, namespace, annotations } = &object.metadata;
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: {}\n  annotations:\n",
            scalar(name),
            scalar(namespace)
        );
        for (key, value) in annotations {
            let _ = writeln!(out, "    {}: {}", scalar(key), text(value, "      "));
        }
    }
    out
}

/// A tree of maps as YAML, with what stands above each of its entries.
pub fn tree(value: &Value, indent: usize) -> String {
    let Value::Object(entries) = value else { return format!("{}\n", inline(value)) };
    let mut out = String::new();
    for (key, value) in entries {
        let (blanks, key) = (" ".repeat(indent), scalar(key));
        let _ = match value {
            Value::Object(inner) if !inner.is_empty() => write!(out, "{blanks}{key}:\n{}", tree(value, indent + 2)),
            _ => writeln!(out, "{blanks}{key}: {}", inline(value)),
        };
    }
    out
}

/// A value on one line. JSON is YAML.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => json(&other.to_string()),
    }
}

/// A text in the shortest form that cannot be taken for anything else.
fn scalar(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let is_word = text.len() > 1 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(is_plain);
    let words = ["true", "false", "null", "yes", "no", "on", "off"];
    let is_other = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_word && !is_other { text.to_owned() } else { quoted(text) }
}

/// A text in double quotes.
fn quoted(text: &str) -> String {
    json(&Value::from(text).to_string())
}

/// JSON that every reader of YAML takes, and that commands no terminal.
fn json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in printable_json(json).chars() {
        match c {
            // YAML does not allow them as they are. Writing to a String cannot fail.
            '\u{feff}' | '\u{fffe}' | '\u{ffff}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// A text of several lines as a block, so that it can be read; every other one in quotes.
fn text(value: &str, indent: &str) -> String {
    let readable = |line: &str| {
        let plain = |c: char| c == ' ' || (!c.is_whitespace() && !matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}'));
        line.starts_with(|c: char| !c.is_whitespace()) && line.chars().all(plain) && printable(line) == line
    };
    // A carriage return would end a line of YAML.
    let is_block = (value.contains(" => ")) && value.split('\n').all(readable);
    if !is_block {
        return quoted(value);
    }
    let lines = value.split('\n').map(|line| format!("\n{indent}{line}"));
    format!("|-{}", lines.collect::<String>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(objects: &[ServicePatch]) -> Vec<Value> {
        let all = yaml(objects);
        let documents = all.split("\n---\n").skip(1);
        documents
            .map(|document| serde_saphyr::from_str(document).unwrap_or_else(|bad| panic!("{bad}:\n{all}")))
            .collect()
    }

    #[test]
    fn plain_words_are_not_quoted() {
        for (text, want) in [
            ("web", "web"),
            ("maesh.containo.us/routes", "maesh.containo.us/routes"),
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("n", "\"n\""),
            ("1e3", "\"1e3\""),
            ("a: b", "\"a: b\""),
            ("", "\"\""),
            ("\u{feff}\u{85}", "\"\\ufeff\\u0085\""),
        ] {
            assert_eq!(scalar(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_shell_takes_a_word_for_what_it_is() {
        for text in ["", "a", "a b", "it's", "$(id) `id` \"x\" \\ \n#", "'", "''a'", "~", "*", "ü"] {
            let script = format!("printf %s {}", shell(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{script}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_back(key in "\\PC{1,12}", value in "(\\PC|[\n\r\t `\"\u{0}\u{85}\u{feff}]| => ){0,20}", comment in ".{0,20}") {
            let mut patch = ServicePatch::new("123", "null");
            patch.add(key.clone(), value.clone());
            patch.comments.push(comment);
            let read = read(&[patch]);
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(&read[0]["metadata"]["annotations"][&key], &Value::from(value));
            prop_assert_eq!(&read[0]["metadata"]["name"], "null");
            prop_assert_eq!(&read[0]["metadata"]["namespace"], "123");
        }
    }
}
