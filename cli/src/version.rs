//! What this program is.

use serde_json::json;

use crate::args::Output;

/// The version, as every role tells it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints it.
pub fn print(output: Output) {
    match output {
        Output::Text => println!("maesh {VERSION}"),
        Output::Json => println!("{}", json!({ "version": VERSION })),
    }
}
