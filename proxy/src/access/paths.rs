//! What an endpoint may take a path for.
//!
//! Servers differ: some decode `%2F`, some cut parameters behind `;`, some join `//` and resolve `..`, some take `\` for `/`, and
//! they do so in any order. A grant for `/public` must not open `/public/..%2fadmin`. So a rule has to hold for each of the
//! readings, and a path that has none of these signs has one. Octets of which no server can be trusted to make the same, such as
//! what is no UTF-8, have no reading: no grant that asks for a path opens them.

use std::borrow::Cow;

/// Times that a path is decoded. What can be decoded once more then is not understood.
const MOST_DECODED: usize = 4;

/// Each reading of `path`, in the form in which rules see paths; `None` if nobody can say how it is read.
pub(super) fn readings(path: &str) -> Option<Vec<Cow<'_, str>>> {
    let as_sent = crate::routes::decoded(path);
    if !is_doubtful(path) {
        return Some(vec![as_sent]);
    }
    let fully = decoded_fully(path)?;
    let mut all = vec![as_sent.into_owned()];
    for decode in [false, true] {
        for cut in [false, true] {
            let mut text = if decode { fully.clone() } else { crate::routes::decoded(path).into_owned() };
            if cut {
                text = without_parameters(&text);
            }
            for back in [false, true] {
                let text = if back { text.replace('\\', "/") } else { text.clone() };
                all.push(resolved(&text));
                all.push(text);
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    Some(all.into_iter().map(Cow::Owned).collect())
}

/// Whether servers read it as different paths: an encoded slash, backslash or zero, a backslash, a `;` in a dot segment, or what has
/// no reading.
pub(super) fn is_read_differently(path: &str) -> bool {
    let encoded = |octet: &str| path.as_bytes().windows(3).any(|it| it.eq_ignore_ascii_case(octet.as_bytes()));
    let is_dots = |segment: &str| {
        let name = segment.split_once(';').map_or("", |(name, _)| name).to_ascii_lowercase().replace("%2e", ".");
        [".", ".."].contains(&&*name)
    };
    is_doubtful(path)
        && (["%2f", "%5c", "%00"].into_iter().any(encoded)
            || path.contains('\\')
            || path.split('/').any(is_dots)
            || decoded_fully(path).is_none())
}

/// Whether servers may differ about it.
fn is_doubtful(path: &str) -> bool {
    path.contains(['%', ';', '\\']) || path.contains("//") || path.contains("/.")
}

/// Every octet decoded, and what that makes decoded again, as some servers do; `None` for what servers read in ways of their own:
/// no UTF-8, which some take for the characters that it looks like, octets that end texts, `%` that begins no octet, `%u`, what
/// Windows reads as dots or slashes, and what is encoded again and again.
fn decoded_fully(path: &str) -> Option<String> {
    let (octets, percents) = (octets(path), path.matches('%').count());
    if octets < percents {
        return None;
    }
    let mut text = path.to_owned();
    for _ in 0..MOST_DECODED {
        if self::octets(&text) == 0 {
            return Some(text).filter(|text| !text.contains("%u") && !is_folded_by_windows(text));
        }
        text = String::from_utf8(decode(text.as_bytes())).ok().filter(|text| !text.contains(char::is_control))?;
    }
    None
}

/// Whether Windows makes dot segments or slashes of what is none: it drops spaces and dots at the end of a name, and programs there
/// turn characters into those of ASCII that look like them.
fn is_folded_by_windows(path: &str) -> bool {
    let becomes_dots = |segment: &str| {
        segment.contains("..") && segment != ".." && segment.bytes().all(|byte| matches!(byte, b'.' | b' '))
    };
    let looks_like_ascii = ['\u{2024}', '\u{2044}', '\u{2215}', '\u{ff0e}', '\u{ff0f}', '\u{ff3c}'];
    path.contains(looks_like_ascii) || path.split(['/', '\\', ';']).any(becomes_dots)
}

/// How many `%` begin an encoded octet.
fn octets(text: &str) -> usize {
    text.as_bytes().windows(3).filter(|it| it[0] == b'%' && it[1..].iter().all(u8::is_ascii_hexdigit)).count()
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let text = digits.filter(|_| bytes[at] == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match text.and_then(|text| u8::from_str_radix(text, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// Without what stands behind `;` in each segment.
fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// Without empty segments, `.` and `..` (RFC 3986 section 5.2.4).
fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let ends_open = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let end = if ends_open && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_without_doubt_has_one_reading() {
        for path in ["/", "/public/x", "/a-b_c~d.e", "/a.b/c", "*"] {
            assert_eq!(readings(path).expect("understood"), [path], "{path}");
        }
    }

    #[test]
    fn whatever_a_server_may_see_is_among_the_readings() {
        for (path, seen) in [
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public%2f..%2fadmin", "/admin"),
            ("/public/..%2Fadmin", "/admin"),
            ("/public/..%252fadmin", "/admin"),
            ("/public/%25252e%25252e%25252fadmin", "/admin"),
            ("/public/100%25/x", "/public/100%/x"),
            ("/caf%c3%a9", "/caf\u{e9}"),
            ("/public/..;/admin", "/admin"),
            ("/public;/../admin", "/admin"),
            ("/public/..\\admin", "/admin"),
            ("/public/..%5cadmin", "/admin"),
            ("//admin", "/admin"),
            ("/./admin", "/admin"),
            ("/public/./../admin/", "/admin/"),
            ("/%61dmin", "/admin"),
            ("/admin;x=1/y", "/admin/y"),
            ("/public/../../admin", "/admin"),
        ] {
            let readings = readings(path).expect("understood");
            assert!(readings.iter().any(|reading| reading == seen), "{path}: {readings:?}");
        }
    }

    #[test]
    fn which_paths_servers_read_differently() {
        for (path, want) in [
            ("/", false),
            ("/a%20b;v=1/c.d/../e", false),
            ("/a//b", false),
            ("/a%2Fb", true),
            ("/a%2fb", true),
            ("/a%5cb", true),
            ("/a\\b", true),
            ("/a%00", true),
            ("/a/..;/b", true),
            ("/a/%2E.;x/b", true),
            ("/a/%ff", true),
            ("/a/...", true),
            ("/a/b...c/1.2..%20x", false),
        ] {
            assert_eq!(is_read_differently(path), want, "{path}");
        }
    }

    #[test]
    fn what_servers_read_in_ways_of_their_own_has_no_reading() {
        for path in [
            "/public/%c0%ae%c0%ae%c0%afadmin",
            "/public/..%c0%afadmin",
            "/public/%e0%80%ae%e0%80%ae/admin",
            "/caf%e9",
            "/public/..%00/admin",
            "/public/x%0a",
            "/public/%u002e%u002e/admin",
            "/public/%25u002e/admin",
            "/public/%",
            "/public/%2",
            "/public/%2525252525252e",
            "/public/..%20/admin",
            "/public/%20../admin",
            "/public/..%20;x/admin",
            "/public/.../admin",
            "/public/%EF%BC%8E%EF%BC%8E/admin",
            "/public/%e2%88%95..%e2%88%95admin",
            "/public/..%EF%BC%BCadmin",
        ] {
            assert_eq!(readings(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_always_a_reading_and_they_are_few(path in "/[a/.;%25fe2\\\\]{0,24}") {
            let Some(readings) = readings(&path) else { return Ok(()) };
            prop_assert!(readings.contains(&crate::routes::decoded(&path)), "{readings:?}");
            prop_assert!((1..=17).contains(&readings.len()), "{readings:?}");
        }
    }
}
