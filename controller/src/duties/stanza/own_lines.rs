//! What in a Corefile is ours: whole lines between our marks, what is left of them, and stanzas without marks.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use super::{
    BEGIN, END, KEPT, NotUnderstood, SUBNET,
    corefile::{Block, BlockAddress, address, parse},
    lexer::{Lexed, Word, byte_order_mark, lex},
};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnLines {
    /// Whole lines, in order, apart from each other.
    pub(super) spans: Vec<Span>,
    /// Where the prefixes of kept lines are.
    pub(super) kept: Vec<Range<usize>>,
    /// The stanzas among them that forward over TLS: a person wrote those, and the mesh writes none.
    pub(super) over_tls: Vec<TlsStanza>,
}

/// A stanza that a person wrote, which forwards over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsStanza {
    /// Where its lines begin.
    pub(super) start: usize,
    /// The zones that it is for.
    pub(super) zones: Vec<BlockAddress>,
    /// Where it leads.
    pub(super) forward: IpAddr,
}

/// Whole lines that are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: Range<usize>,
    pub(super) marks: MarkerState,
}

/// How they are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkerState {
    /// Beginning and end.
    Both,
    /// Only one of them.
    One,
    /// None: a stanza that a person wrote by hand, or of which a tool dropped the comments.
    None,
}

impl OwnLines {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.kept.is_empty()
    }

    /// `text` without it; what was kept for others is theirs again.
    pub(super) fn taken_out(&self, text: &str) -> String {
        without(text, self.spans.iter().map(|span| &span.at).chain(&self.kept))
    }

    /// `text` without it; what is kept for others stays kept.
    pub(super) fn cut(&self, text: &str) -> String {
        without(text, self.spans.iter().map(|span| &span.at))
    }
}

/// Finds it. `is_ours` says whether a zone, on whatever port, is one of the mesh's.
///
/// # Errors
/// Where it cannot be told from what is not ours.
pub(super) fn find(text: &str, is_ours: &dyn Fn(&BlockAddress) -> bool) -> Result<OwnLines, NotUnderstood> {
    let lexed = lex(text);
    let mut ours = OwnLines { spans: marked(text, &lexed, is_ours)?, kept: kept(text, &lexed), over_tls: Vec::new() };
    let rest = ours.cut(text);
    let half = ours.spans.iter().find(|span| span.marks == MarkerState::One);
    let rest_lexed = lex(&rest);
    match parse(&rest_lexed.words) {
        Ok(found) => {
            let unmarked = found
                .blocks
                .iter()
                .filter(|block| has_our_shape(block, is_ours) || tls_forward(block, is_ours).is_some());
            let alone = unmarked.filter_map(|block| whole_lines(&rest, &block.span));
            for at in alone {
                ours.spans.push(Span { at: moved(&at, &ours.spans), marks: MarkerState::None });
            }
            ours.spans.sort_by_key(|span| span.at.start);
        }
        Err(_) if half.is_none() => {}
        Err(_) => {
            let start = half.map_or(0, |span| span.at.start);
            return Err(NotUnderstood::Half { line: line_at(text, start) });
        }
    }
    ours.over_tls = ours.spans.iter().flat_map(|span| over_tls(text, &span.at, is_ours)).collect();
    Ok(ours)
}

/// The stanzas in these lines of ours that forward over TLS.
fn over_tls(text: &str, at: &Range<usize>, is_ours: &dyn Fn(&BlockAddress) -> bool) -> Vec<TlsStanza> {
    let lexed = lex(&text[at.clone()]);
    let Ok(found) = parse(&lexed.words) else { return Vec::new() };
    let stanza = |block: &Block<'_>| {
        let forward = tls_forward(block, is_ours)?;
        Some(TlsStanza { start: at.start, zones: block.addresses().collect(), forward })
    };
    found.blocks.iter().filter_map(stanza).collect()
}

/// A place in the text without `spans`, as a place in the text with them.
fn moved(at: &Range<usize>, spans: &[Span]) -> Range<usize> {
    let marked = || spans.iter().filter(|span| span.marks != MarkerState::None);
    let start = marked().fold(at.start, |at, span| if span.at.start <= at { at + span.at.len() } else { at });
    let end = marked().fold(at.end, |at, span| if span.at.start < at { at + span.at.len() } else { at });
    start..end
}

/// Lines between our marks, and around one that is alone.
fn marked(text: &str, lexed: &Lexed, is_ours: &dyn Fn(&BlockAddress) -> bool) -> Result<Vec<Span>, NotUnderstood> {
    let mut spans: Vec<Span> = Vec::new();
    let mut open: Option<Range<usize>> = None;
    let alone = lexed.comments.iter().filter_map(|comment| whole_lines(text, comment));
    for line in alone {
        let words = text[line.clone()].trim();
        if words == END {
            match open.take() {
                Some(begin) => {
                    check_between(text, begin.end..line.start, is_ours)?;
                    spans.push(Span { at: begin.start..line.end, marks: MarkerState::Both });
                }
                None => {
                    let from = spans.last().map_or(0, |span| span.at.end);
                    let start = torn_before(text, from..line.start, is_ours);
                    spans.push(Span { at: start..line.end, marks: MarkerState::One });
                }
            }
        } else if words.strip_prefix(BEGIN).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            && let Some(begin) = open.replace(line.clone())
        {
            spans.push(torn_after(text, begin, line.start, is_ours));
        }
    }
    spans.extend(open.map(|begin| torn_after(text, begin, text.len(), is_ours)));
    Ok(spans)
}

/// Refuses blocks that are not the mesh's between our marks. What is no block at all is a broken stanza of ours.
fn check_between(text: &str, at: Range<usize>, is_ours: &dyn Fn(&BlockAddress) -> bool) -> Result<(), NotUnderstood> {
    let inside = lex(&text[at.clone()]);
    let before = line_at(text, at.start) - 1;
    let ours = |key: &str| address(key).is_some_and(|address| is_ours(&address));
    let foreign = match parse(&inside.words) {
        Ok(found) => {
            // The mesh's zones may have been others when it was written.
            let is_foreign =
                |block: &&Block<'_>| !block.keys.iter().any(|key| ours(&key.text)) && !has_our_shape(block, &|_| true);
            let foreign = found.blocks.iter().find(is_foreign);
            foreign.and_then(|block| block.keys.first().or_else(|| block.body.first())).map(|word| word.line)
        }
        Err(_) => {
            let lines = inside.words.chunk_by(|one, next| one.last_line >= next.line);
            let mut opening = lines.filter(|line| line.last().is_some_and(|last| last.text == "{"));
            opening.find(|line| !line.iter().any(|word| ours(&word.text))).map(|line| line[0].line)
        }
    };
    foreign.map_or(Ok(()), |line| Err(NotUnderstood::Between { line: before + line }))
}

/// The lines of a stanza, as one of them can be told from others'.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    Keys,
    Errors,
    Subnet,
    Forward,
    Close,
}

fn line_of_ours(line: &str, is_ours: &dyn Fn(&BlockAddress) -> bool) -> Option<Line> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["errors"] => Some(Line::Errors),
        ["}"] => Some(Line::Close),
        ["forward", ".", to] if to.parse::<IpAddr>().is_ok() => Some(Line::Forward),
        [ref keys @ .., "{"] if !keys.is_empty() => {
            keys.iter().all(|key| address(key).is_some_and(|address| is_ours(&address))).then_some(Line::Keys)
        }
        _ => (words.join(" ") == SUBNET).then_some(Line::Subnet),
    }
}

/// A beginning without an end: with it goes what follows in the stanza's own lines, in their order, from its keys on.
fn torn_after(text: &str, begin: Range<usize>, limit: usize, is_ours: &dyn Fn(&BlockAddress) -> bool) -> Span {
    let mut end = begin.end;
    let mut last = None;
    for line in text[begin.end..limit].split_inclusive('\n') {
        let Some(next) = line_of_ours(line, is_ours) else { break };
        if last.map_or(next != Line::Keys, |last| last >= next) {
            break;
        }
        last = Some(next);
        end += line.len();
    }
    Span { at: begin.start..end, marks: MarkerState::One }
}

/// An end without a beginning: with it goes what stands before it in the stanza's own lines, if the one that nobody
/// else would write is among them. Returns where that begins.
fn torn_before(text: &str, before: Range<usize>, is_ours: &dyn Fn(&BlockAddress) -> bool) -> usize {
    let (mut start, mut last, mut certain) = (before.end, None, false);
    for line in text[before.clone()].split_inclusive('\n').rev() {
        let Some(next) = line_of_ours(line, is_ours) else { break };
        if last.is_some_and(|last| last <= next) {
            break;
        }
        certain |= next == Line::Subnet;
        last = Some(next);
        start -= line.len();
    }
    if certain { start } else { before.end }
}

/// Whether a block says what ours says, whatever the address.
pub(super) fn has_our_shape(block: &Block<'_>, is_ours: &dyn Fn(&BlockAddress) -> bool) -> bool {
    let keys_are_ours = block.keys.iter().all(|key| address(&key.text).is_some_and(|address| is_ours(&address)));
    let lines: Vec<String> =
        block.lines().map(|line| line.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")).collect();
    let [errors, subnet, forward] = &lines[..] else { return false };
    let forwards = forward.strip_prefix("forward . ").is_some_and(|to| to.parse::<IpAddr>().is_ok());
    keys_are_ours && !block.keys.is_empty() && errors == "errors" && subnet == SUBNET && forwards
}

/// Where a block for the mesh's zones leads, if it does what ours does over TLS instead: it tells who asks, and forwards to
/// one address. What else it does is its owner's business.
fn tls_forward(block: &Block<'_>, is_ours: &dyn Fn(&BlockAddress) -> bool) -> Option<IpAddr> {
    let keys_are_ours = block.keys.iter().all(|key| address(&key.text).is_some_and(|address| is_ours(&address)));
    let words = |line: &[Word]| line.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    if block.keys.is_empty() || !keys_are_ours || !block.lines().any(|line| words(line) == SUBNET) {
        return None;
    }
    let mut forwards = block.lines().filter(|line| line[0].text == "forward");
    let line: Vec<&str> = forwards.next()?.iter().map(|word| word.text.as_str()).collect();
    let (["forward", ".", to] | ["forward", ".", to, "{"]) = line[..] else { return None };
    // A name to verify may stand behind the address.
    let to = to.strip_prefix("tls://")?.split('%').next()?;
    let address = to.parse().ok().or_else(|| Some(to.parse::<SocketAddr>().ok()?.ip()));
    address.filter(|_| forwards.next().is_none())
}

/// The prefixes of lines that are kept for others.
fn kept(text: &str, lexed: &Lexed) -> Vec<Range<usize>> {
    let begins = |comment: &&Range<usize>| {
        text[(*comment).clone()].starts_with(KEPT)
            && (comment.start == byte_order_mark(text) || text[..comment.start].ends_with('\n'))
    };
    lexed.comments.iter().filter(begins).map(|comment| comment.start..comment.start + KEPT.len()).collect()
}

/// The lines that `at` is in, with their ends, if nothing else is in them.
pub(super) fn whole_lines(text: &str, at: &Range<usize>) -> Option<Range<usize>> {
    let start = text[..at.start].rfind('\n').map_or_else(|| byte_order_mark(text), |end| end + 1);
    let end = text[at.end..].find('\n').map_or(text.len(), |length| at.end + length + 1);
    let blank = |part: &str| part.trim().is_empty();
    (start <= at.start && blank(&text[start..at.start]) && blank(&text[at.end..end])).then_some(start..end)
}

/// The line of a place, from 1.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// `text` without these places.
fn without<'a>(text: &str, places: impl Iterator<Item = &'a Range<usize>>) -> String {
    let mut places: Vec<_> = places.collect();
    places.sort_by_key(|place| place.start);
    let mut rest = String::with_capacity(text.len());
    let mut from = 0;
    for place in places {
        if place.start >= from {
            rest.push_str(&text[from..place.start]);
        }
        from = from.max(place.end);
    }
    rest.push_str(&text[from..]);
    rest
}
