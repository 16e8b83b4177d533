//! Reading certificates, keys and tokens.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Longest file that is read.
const LONGEST: u64 = 1 << 20;

/// The whole of a small file.
///
/// # Errors
/// Those of the system; also when it is longer than 1 MiB, or is no regular file: reading from a pipe would wait for its
/// writer, and everything here with it.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe does not wait either.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    if file.take(LONGEST + 1).read_to_end(&mut bytes)? as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(bytes)
}

/// The same, of text.
///
/// # Errors
/// As [`read`]; also when it is not UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_small_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("small"), "text").unwrap();
        std::fs::write(at("large"), vec![b'a'; (1 << 20) + 1]).unwrap();
        std::fs::write(at("binary"), [0xff]).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for (name, want) in [
            ("small", "text"),
            ("large", "it is longer than 1 MiB"),
            ("binary", "it is not UTF-8"),
            ("pipe", "it is no regular file"),
            (".", "it is no regular file"),
            ("missing", "No such file or directory (os error 2)"),
        ] {
            let read = read_text(&at(name)).unwrap_or_else(|error| error.to_string());
            assert_eq!(read, want, "{name}");
        }
    }
}
