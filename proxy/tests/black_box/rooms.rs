//! Which module may use which: a folder or file directly below `src`, a "room", uses only rooms that stand before it.
//!
//! So nothing below the data path depends on what is above it, and there is no circle.

use std::{collections::BTreeSet, fs};

use maesh_test_support::repository;

/// Every room, from the bottom to the top.
const ROOMS: [&str; 31] = [
    "clock",
    "config",
    "fields",
    "fixtures",
    "host",
    "http2",
    "local_ports",
    "loops",
    "reason",
    "routes",
    "access",
    "socket",
    "sockets",
    "admission",
    "telemetry",
    "buffers",
    "connect",
    "upstream",
    "policy",
    "balance",
    "state",
    "metrics",
    "worker",
    "tls",
    "tcp",
    "udp",
    "http",
    "listener",
    "drain",
    "explain",
    "proxy",
];

#[test]
fn rooms_use_only_what_is_below_them() {
    let source = repository().join("proxy/src");
    let level = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut uses = BTreeSet::new();
    let mut files = vec![source.clone()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        // What counts instructions is beside what it counts, and in no proxy.
        if path.components().any(|part| part.as_os_str() == "instructions" || part.as_os_str() == "instructions.rs") {
            continue;
        }
        let room = path.strip_prefix(&source).expect("below").components().next().expect("a name");
        let room = room.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).expect("a source");
        uses.extend(used_by(&text).into_iter().filter(|used| *used != room).map(|used| (room.clone(), used)));
    }
    assert!(uses.contains(&("http".to_owned(), "state".to_owned())), "the sources are read: {uses:?}");
    for (room, used) in uses {
        let (Some(own), Some(other)) = (level(&room), level(&used)) else {
            panic!("{room} uses {used}: give both a place in the list")
        };
        assert!(other < own, "{room} must not use {used}, which is above it");
    }
}

/// The rooms that a source names in paths that begin with `crate::`, tests aside.
fn used_by(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let mut used = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            used.insert(word(after));
            continue;
        };
        // The first word of each part of the group, at its outermost level.
        let (mut depth, mut begins) = (0_usize, true);
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                letter if begins && letter.is_alphabetic() => {
                    used.insert(word(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    // Items of the crate's root.
    used.retain(|used| !used.is_empty() && used.starts_with(char::is_lowercase));
    used
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}
