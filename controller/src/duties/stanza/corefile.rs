//! Server blocks of a Corefile, found as CoreDNS finds them; what a plugin's line means is not asked.

use std::ops::Range;

use super::{NotUnderstood, lexer::Word};

/// The transport that plain DNS has in keys.
const DNS: &str = "dns";
/// The port of a key that names none.
const DEFAULT_PORT: u16 = 53;

/// One server block, or a snippet.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// What it is for: `maesh:53`, `.`, `(snippet)`.
    pub(super) keys: &'a [Word],
    /// All words between its braces.
    pub(super) body: &'a [Word],
    /// From its first key to behind its closing brace.
    pub(super) span: Range<usize>,
}

/// What there is outside of any block.
#[derive(Debug, Default)]
pub(super) struct Corefile<'a> {
    pub(super) blocks: Vec<Block<'a>>,
    /// Patterns of files that are imported as further blocks.
    pub(super) imports: Vec<&'a str>,
}

/// A zone on a port, as keys of a block say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockAddress {
    /// Lower-case, without trailing dot; empty for the root.
    pub(super) zone: String,
    pub(super) port: u16,
}

impl Block<'_> {
    /// The zones that it serves by plain DNS.
    pub(super) fn addresses(&self) -> impl Iterator<Item = BlockAddress> {
        self.keys.iter().filter_map(|key| address(&key.text))
    }

    /// The lines of its body; nested braces are words like others.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[Word]> {
        self.body.chunk_by(|one, next| one.last_line >= next.line)
    }
}

/// Reads a key: `zone`, `zone:port` or `dns://zone:port`. Other transports and reverse zones are `None`.
pub(super) fn address(key: &str) -> Option<BlockAddress> {
    let key = key.strip_suffix(',').unwrap_or(key);
    let key = match key.split_once("://") {
        Some((transport, rest)) => (transport == DNS).then_some(rest)?,
        None => key,
    };
    let (zone, port) = match key.rsplit_once(':') {
        Some((zone, port)) => (zone, port.parse().ok()?),
        None => (key, DEFAULT_PORT),
    };
    Some(BlockAddress { zone: zone.strip_suffix('.').unwrap_or(zone).to_ascii_lowercase(), port })
}

/// Finds all blocks.
///
/// # Errors
/// Where CoreDNS would find fault too, and where only it can know what is meant.
pub(super) fn parse(words: &[Word]) -> Result<Corefile<'_>, NotUnderstood> {
    let mut parser = Parser { words, at: 0, found: Corefile::default() };
    while parser.at < words.len() {
        parser.block_or_import()?;
    }
    Ok(parser.found)
}

struct Parser<'a> {
    words: &'a [Word],
    at: usize,
    found: Corefile<'a>,
}

impl<'a> Parser<'a> {
    fn block_or_import(&mut self) -> Result<(), NotUnderstood> {
        let start = self.at;
        if self.is(start, "import") && self.begins_line(start) {
            return self.import();
        }
        let open = self.keys()?;
        let keys = &self.words[start..open];
        if let Some(key) = keys.iter().find(|key| key.text.contains("{$") || key.text.contains("{%")) {
            return Err(NotUnderstood::Environment { line: key.line, key: key.text.clone() });
        }
        let is_snippet = matches!(keys, [key] if key.text.starts_with('(') && key.text.ends_with(')'));
        let close = if is_snippet { self.closing(open)? } else { self.directives(open)? };
        self.found.blocks.push(Block {
            keys,
            body: &self.words[open + 1..close],
            span: keys.first().unwrap_or(&self.words[open]).start..self.words[close].end,
        });
        self.at = close + 1;
        Ok(())
    }

    fn import(&mut self) -> Result<(), NotUnderstood> {
        let line = self.words[self.at].line;
        match (self.words.get(self.at + 1), self.begins_line(self.at + 1), self.begins_line(self.at + 2)) {
            (Some(pattern), false, true) => self.found.imports.push(&pattern.text),
            _ => return Err(syntax(line, "import takes one pattern")),
        }
        self.at += 2;
        Ok(())
    }

    /// Returns where the brace behind the keys is.
    fn keys(&self) -> Result<usize, NotUnderstood> {
        let mut another = false;
        for at in self.at..self.words.len() {
            let word = &self.words[at];
            if word.text == "{" {
                return if another { Err(syntax(word.line, "a zone is missing after a comma")) } else { Ok(at) };
            }
            if at > self.at && !another && self.begins_line(at) {
                return Err(NotUnderstood::Unbraced { line: self.words[self.at].line });
            }
            another = word.text.ends_with(',');
        }
        Err(NotUnderstood::Unbraced { line: self.words[self.at].line })
    }

    /// Returns where the brace is that closes the one at `open`, each directive being one line, or more with braces.
    fn directives(&self, open: usize) -> Result<usize, NotUnderstood> {
        let mut nesting = 0_usize;
        for at in open + 1..self.words.len() {
            let word = &self.words[at];
            // Behind the opening brace, and behind one that closes a nested block, the next word is looked at anew.
            let begins = at == open + 1 || self.begins_line(at);
            match word.text.as_str() {
                "{" if nesting == 0 && begins => {
                    return Err(syntax(word.line, "an opening brace that belongs to nothing"));
                }
                "{" => nesting += 1,
                "}" if nesting > 0 => nesting -= 1,
                "}" if begins => return Ok(at),
                "}" => return Err(syntax(word.line, "a closing brace that closes nothing")),
                _ => {}
            }
        }
        Err(syntax(self.words[open].line, "the block that begins here is not closed"))
    }

    /// Returns where the brace is that closes the one at `open`, wherever lines end.
    fn closing(&self, open: usize) -> Result<usize, NotUnderstood> {
        let mut nesting = 0_usize;
        for at in open..self.words.len() {
            match self.words[at].text.as_str() {
                "{" => nesting += 1,
                "}" if nesting == 1 => return Ok(at),
                "}" => nesting -= 1,
                _ => {}
            }
        }
        Err(syntax(self.words[open].line, "the snippet that begins here is not closed"))
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.words.get(at).is_some_and(|word| word.text == text)
    }

    /// Whether the word at `at`, or the end, is on another line than the one before.
    fn begins_line(&self, at: usize) -> bool {
        match (at.checked_sub(1).and_then(|before| self.words.get(before)), self.words.get(at)) {
            (Some(before), Some(word)) => before.last_line < word.line,
            _ => true,
        }
    }
}

fn syntax(line: usize, what: &'static str) -> NotUnderstood {
    NotUnderstood::Syntax { line, what }
}

#[cfg(test)]
mod tests {
    use super::{super::lexer::lex, *};

    fn read(text: &str) -> Result<Vec<String>, String> {
        let words = lex(text).words;
        let found = parse(&words).map_err(|error| error.to_string())?;
        let zones = |block: &Block<'_>| block.addresses().map(|a| format!("{}:{}", a.zone, a.port)).collect::<Vec<_>>();
        let blocks = found.blocks.iter().map(|block| zones(block).join(" "));
        Ok(blocks.chain(found.imports.iter().map(|pattern| format!("import {pattern}"))).collect())
    }

    #[test]
    fn blocks_are_found_as_coredns_finds_them() {
        for (case, text, want) in [
            ("nothing", "# only a comment", &[][..]),
            ("one", ".:53 {\n errors\n}\n", &[":53"]),
            ("keys over lines", "a,\nb.:54 dns://C {\n}\n", &["a:53 b:54 c:53"]),
            ("other transports", "tls://a https://b:444 {\n}", &[""]),
            ("nested", ". {\n cache 30 {\n  disable success\n }\n forward . 1 {\n }\n}\nb {\n}", &[":53", "b:53"]),
            ("a key behind a brace", "a {\n} b {\n}", &["a:53", "b:53"]),
            ("imports", "import a/*.server\n. {\nimport b\n}\n", &[":53", "import a/*.server"]),
            ("snippets", "(a) {\n errors }\n. {\n import a\n}", &["(a):53", ":53"]),
        ] {
            assert_eq!(
                read(text).as_deref(),
                Ok(&want.iter().map(|&w| w.to_owned()).collect::<Vec<_>>()[..]),
                "{case}"
            );
        }
    }

    #[test]
    fn what_coredns_refuses_is_refused() {
        for (case, text, want) in [
            ("no braces", ".:53\nerrors\n", "line 1: a server block without braces"),
            ("only a key", "a", "line 1: a server block without braces"),
            ("a comma and no zone", "a, {\n}", "line 1: a zone is missing after a comma"),
            ("on one line", "\na { errors }", "line 2: a closing brace that closes nothing"),
            ("not closed", "a {\n b {\n }\n", "line 1: the block that begins here is not closed"),
            ("not closed inside", "a {\n b {\n}\n", "line 1: the block that begins here is not closed"),
            ("no blank behind a brace", "a {\n}b {\n}", "line 1: the block that begins here is not closed"),
            ("a brace of nothing", "a {\n{\n}\n}", "line 2: an opening brace that belongs to nothing"),
            ("one brace too many", "a {\n}\n}\n", "line 3: a server block without braces"),
            ("import of nothing", "import\n. {\n}", "line 1: import takes one pattern"),
            ("keys from the environment", "{$ZONE}:53 {\n}", "line 1: the zone {$ZONE}:53 is set by"),
        ] {
            let error = read(text).expect_err(case);
            assert!(error.contains(want), "{case}: {error}");
        }
    }
}
