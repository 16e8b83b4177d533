//! Standard output and standard error of commands. Either may be closed or full, which never ends a command in its middle.
//!
//! What is printed has text in it that came from objects, files and the network. Whoever wrote that must not command the
//! terminal of who reads it, so everything is escaped here that a terminal would obey, ends of lines and tabs excepted.

use std::{
    borrow::Cow,
    fmt::{Arguments, Write as _},
    io::{self, Write},
    sync::OnceLock,
};

use maesh_compiler::diagnostic::escaped;
use serde::Serialize;

static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Writes to standard output. A reader that is gone (`| head -1`) has read all that it wants; another failure is kept for
/// [`failure`].
pub fn out(text: Arguments<'_>) {
    write_out(&printable(&text.to_string()));
}

/// Writes a value as one line of JSON to standard output.
pub fn json(value: &impl Serialize) -> serde_json::Result<()> {
    write_out(&format!("{}\n", printable_json(&serde_json::to_string(value)?)));
    Ok(())
}

fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    note(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Writes to standard error.
pub fn err(text: Arguments<'_>) {
    // There is no other place to say that it failed.
    let _ = io::stderr().lock().write_all(printable(&text.to_string()).as_bytes());
}

/// Writes to standard error what commands the terminal; nothing that others wrote may be in it.
pub fn err_raw(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// `text` without anything that a terminal would obey, but for ends of lines and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    if matches!(escaped(text), Cow::Borrowed(_)) {
        return Cow::Borrowed(text);
    }
    let line = |line: &str| line.split('\t').map(escaped).collect::<Vec<_>>().join("\t");
    Cow::Owned(text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
}

/// The same for JSON, which stays JSON.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    if matches!(escaped(json), Cow::Borrowed(_)) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        match escaped(c.encode_utf8(&mut [0; 4])) {
            Cow::Borrowed(c) => out.push_str(c),
            // All of these have at most four digits. Writing to a String cannot fail.
            Cow::Owned(_) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
        }
    }
    Cow::Owned(out)
}

/// Notes how writing to standard output ended.
pub fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = FAILURE.set(error);
    }
}

/// Why something could not be written to standard output.
pub fn failure() -> Option<&'static io::Error> {
    FAILURE.get()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_the_terminal() {
        for (text, want) in
            [("a\n\tb\n", "a\n\tb\n"), ("a\u{1b}[2J\nb\u{9b}", "a\\u{1b}[2J\nb\\u{9b}"), ("\r\u{202e}", "\\r\\u{202e}")]
        {
            assert_eq!(printable(text), want, "{text:?}");
        }
        let value = serde_json::json!({ "name": "a\u{1b}\u{9b}\u{202e}ä\n" });
        let text = value.to_string();
        let printed = printable_json(&text);
        assert_eq!(printed, r#"{"name":"a\u001b\u009b\u202eä\n"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }
}
