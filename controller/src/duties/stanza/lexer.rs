//! Words and comments of a Corefile, exactly as CoreDNS reads them.
//!
//! Its oddities are kept on purpose: a text that we read differently from CoreDNS is one that we could break.

use std::ops::Range;

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says, quotes and escapes removed.
    pub(super) text: String,
    /// Where it begins, in bytes.
    pub(super) start: usize,
    /// Behind its last byte.
    pub(super) end: usize,
    /// Line of its first character, from 1.
    pub(super) line: usize,
    /// Line of its last character.
    pub(super) last_line: usize,
}

/// Words and comments, each in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lexed {
    pub(super) words: Vec<Word>,
    /// From `#` up to the end of the line, which is not part of it.
    pub(super) comments: Vec<Range<usize>>,
}

/// Length of a byte order mark at the beginning, which CoreDNS skips.
pub(super) fn byte_order_mark(text: &str) -> usize {
    if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// Reads all of it. There is no text that cannot be read.
pub(super) fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer { text, at: byte_order_mark(text), line: 1, found: Lexed::default() };
    while let Some(next) = lexer.peek() {
        match next {
            '#' => lexer.comment(),
            '"' => lexer.quoted(),
            next if next.is_whitespace() => drop(lexer.take()),
            _ => lexer.bare(),
        }
    }
    lexer.found
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    found: Lexed,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn comment(&mut self) {
        let start = self.at;
        self.at = self.text[start..].find('\n').map_or(self.text.len(), |length| start + length);
        self.found.comments.push(start..self.at);
    }

    /// Only a quoted word can span lines, or contain blanks. Its end is a quote, or that of the file.
    fn quoted(&mut self) {
        let (start, line) = (self.at, self.line);
        let mut text = String::new();
        self.take();
        let mut closed = false;
        while let Some(next) = self.take() {
            match next {
                '"' => {
                    closed = true;
                    break;
                }
                '\\' if self.peek() == Some('"') => text.extend(self.take()),
                '\\' => {
                    text.push('\\');
                    text.extend(self.take());
                }
                next => text.push(next),
            }
        }
        if closed || !text.is_empty() {
            self.found.words.push(Word { text, start, end: self.at, line, last_line: self.line });
        }
    }

    /// A word ends at a blank, but not at a carriage return, which is left out. After a `#` the rest of the word is
    /// left out, not the rest of the line.
    fn bare(&mut self) {
        let (start, line) = (self.at, self.line);
        let mut text = String::new();
        let mut comment = false;
        while let Some(next) = self.peek() {
            if next.is_whitespace() && next != '\r' {
                break;
            }
            comment |= next == '#';
            if !comment && next != '\r' {
                text.push(next);
            }
            self.take();
        }
        self.found.words.push(Word { text, start, end: self.at, line, last_line: line });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_coredns_reads_them() {
        for (case, text, words) in [
            ("blanks of every kind", " a\tb\u{a0}c\u{85}d\n", &["a", "b", "c", "d"][..]),
            ("a comment", "a # b\nc", &["a", "c"]),
            ("a comment at the end of a word hides the word's rest only", "a#b c\nd", &["a", "c", "d"]),
            ("quotes", "\"a b\" \"c\\\"d\\e\"", &["a b", "c\"d\\e"]),
            ("quotes within a word are letters", "a\"b c\"", &["a\"b", "c\""]),
            ("quotes over lines", "\"a\n# b\" c", &["a\n# b", "c"]),
            ("an empty quoted word", "\"\" a", &["", "a"]),
            ("quotes that are never closed", "a \"b c\n", &["a", "b c\n"]),
            ("carriage returns vanish", "a\rb\r\nc", &["ab", "c"]),
            ("a byte order mark at the beginning", "\u{feff}a", &["a"]),
        ] {
            let found: Vec<_> = lex(text).words.into_iter().map(|word| word.text).collect();
            assert_eq!(found, words, "{case}");
        }
    }

    #[test]
    fn a_comment_reaches_to_the_end_of_its_line() {
        let text = "# one\r\na #two\n\"# none\n# none\"#word\n  #three";
        let comments: Vec<_> = lex(text).comments.into_iter().map(|range| &text[range]).collect();
        assert_eq!(comments, ["# one\r", "#two", "#word", "#three"]);
    }
}
