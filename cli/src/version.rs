//! What this program is.

use serde_json::json;

use crate::args::Output;
use crate::terminal;

/// The version, as every role tells it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints it.
pub fn print(output: Output) {
    match output {
        Output::Text => terminal::out(format_args!("maesh {VERSION}\n")),
        Output::Json => terminal::out(format_args!("{}\n", json!({ "version": VERSION }))),
    }
}
