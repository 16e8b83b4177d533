//! The context of a trace in the fields of a request: `traceparent` (W3C Trace Context), and B3, in one field or in several.
//!
//! What comes is continued in the fields in which it came. `tracestate` belongs to others and is passed on untouched.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{RequestTrace, single};
use crate::config::TracePropagation;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// A set of fields that carry a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forms(u8);

impl Forms {
    const W3C: Self = Self(1);
    const B3: Self = Self(2);
    const B3_MULTI: Self = Self(4);

    /// These.
    pub(super) fn of(propagation: &[TracePropagation]) -> Self {
        propagation.iter().fold(Self::default(), |forms, one| {
            forms.and(match one {
                TracePropagation::W3c => Self::W3C,
                TracePropagation::B3 => Self::B3,
                TracePropagation::B3Multi => Self::B3_MULTI,
            })
        })
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a caller says of the trace that its request belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    /// The trace, and the span of the caller.
    pub(super) ids: Option<(u128, u64)>,
    /// Whether it is recorded; `None` if that is left to whoever comes next.
    pub(super) sampled: Option<bool>,
    /// The fields it came in.
    pub(super) forms: Forms,
    pub(super) is_short: bool,
    pub(super) is_debug: bool,
}

/// Reads the context; `None` if there is none that can be read. Where several fields have one, `traceparent` comes first.
pub(super) fn read(fields: &HeaderMap) -> Option<Incoming> {
    let found =
        [single(fields, &TRACEPARENT).and_then(traceparent), single(fields, &B3).and_then(b3), b3_multi(fields)];
    let forms = found.iter().flatten().fold(Forms::default(), |forms, one| forms.and(one.forms));
    let first = found.into_iter().flatten().next()?;
    Some(Incoming { forms, ..first })
}

/// `00-TRACE-SPAN-FLAGS` (W3C Trace Context section 3.2). Later versions may have more behind it.
fn traceparent(text: &str) -> Option<Incoming> {
    let (version, rest) = text.split_once('-')?;
    let known = version == "00";
    if version.len() != 2 || version == "ff" || hex(version, 2).is_none() || (known && text.len() != 55) {
        return None;
    }
    let mut parts = rest.splitn(4, '-');
    let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let ids = ids(hex(trace, 32)?, hex(span, 16)?)?;
    let flags = hex(flags, 2)?;
    Some(Incoming { ids: Some(ids), sampled: Some(flags & 1 == 1), forms: Forms::W3C, ..Incoming::default() })
}

/// `TRACE-SPAN`, `TRACE-SPAN-SAMPLED`, `TRACE-SPAN-SAMPLED-PARENT`, or `SAMPLED` alone.
fn b3(text: &str) -> Option<Incoming> {
    let mut parts = text.split('-');
    let (first, span) = (parts.next()?, parts.next());
    let Some(span) = span else {
        let (sampled, is_debug) = decision(first)?;
        return Some(Incoming { sampled: Some(sampled), is_debug, forms: Forms::B3, ..Incoming::default() });
    };
    let (sampled, is_debug) = match parts.next() {
        Some(said) => decision(said).map(|(sampled, is_debug)| (Some(sampled), is_debug))?,
        None => (None, false),
    };
    let (trace, is_short) = b3_trace(first)?;
    let ids = ids(trace, hex(span, 16)?)?;
    Some(Incoming { ids: Some(ids), sampled, forms: Forms::B3, is_short, is_debug })
}

/// The same in fields of their own.
fn b3_multi(fields: &HeaderMap) -> Option<Incoming> {
    let trace = single(fields, &TRACE_ID);
    let said = single(fields, &SAMPLED);
    if trace.is_none() && said.is_none() {
        return None;
    }
    let is_debug = single(fields, &FLAGS) == Some("1");
    let sampled = if is_debug { Some(true) } else { said.and_then(decision).map(|(sampled, _)| sampled) };
    let read = |trace| {
        let (trace, is_short) = b3_trace(trace)?;
        Some((ids(trace, hex(single(fields, &SPAN_ID)?, 16)?)?, is_short))
    };
    let found = trace.and_then(read);
    let (ids, is_short) = (found.map(|(ids, _)| ids), found.is_some_and(|(_, is_short)| is_short));
    if ids.is_none() && sampled.is_none() {
        return None;
    }
    Some(Incoming { ids, sampled, forms: Forms::B3_MULTI, is_short, is_debug })
}

fn b3_trace(text: &str) -> Option<(u128, bool)> {
    match text.len() {
        16 => Some((hex(text, 16)?, true)),
        _ => Some((hex(text, 32)?, false)),
    }
}

/// Whether it is recorded, and whether for debugging.
fn decision(text: &str) -> Option<(bool, bool)> {
    match text {
        "1" | "true" => Some((true, false)),
        "d" => Some((true, true)),
        "0" | "false" => Some((false, false)),
        _ => None,
    }
}

/// So many digits in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(is_digit)).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// Neither may be zero.
fn ids(trace: u128, span: u128) -> Option<(u128, u64)> {
    let span = u64::try_from(span).ok().filter(|span| *span != 0)?;
    (trace != 0).then_some((trace, span))
}

/// Writes the context into the fields that carry it: `span` is the sender, whose parent is `parent`.
pub(super) fn write(trace: &RequestTrace, fields: &mut HeaderMap, span: u64, parent: Option<u64>) {
    let id = trace.trace_id;
    let trace_text = if trace.is_short { format!("{id:016x}") } else { format!("{id:032x}") };
    if trace.forms.has(Forms::W3C) {
        set(fields, TRACEPARENT, &format!("00-{id:032x}-{span:016x}-01"));
    }
    let (sampled, parent) = (if trace.is_debug { "d" } else { "1" }, parent.map(|parent| format!("{parent:016x}")));
    if trace.forms.has(Forms::B3) {
        let parent = parent.as_ref().map_or_else(String::new, |parent| format!("-{parent}"));
        set(fields, B3, &format!("{trace_text}-{span:016x}-{sampled}{parent}"));
    }
    if trace.forms.has(Forms::B3_MULTI) {
        set(fields, TRACE_ID, &trace_text);
        set(fields, SPAN_ID, &format!("{span:016x}"));
        match &parent {
            Some(parent) => set(fields, PARENT_ID, parent),
            None => drop(fields.remove(PARENT_ID)),
        }
        // The flag of debugging stands for it.
        if !trace.is_debug {
            set(fields, SAMPLED, "1");
        }
    }
}

fn set(fields: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.insert(name, value);
    }
}
