//! Standard output and standard error of commands. Either may be closed or full, which never ends a command in its middle.

use std::{
    fmt::Arguments,
    io::{self, Write},
    sync::OnceLock,
};

static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Writes to standard output. A reader that is gone (`| head -1`) has read all that it wants; another failure is kept for
/// [`failure`].
pub fn out(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    note(out.write_fmt(text).and_then(|()| out.flush()));
}

/// Writes to standard error.
pub fn err(text: Arguments<'_>) {
    // There is no other place to say that it failed.
    let _ = io::stderr().lock().write_fmt(text);
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
