//! What is wrong with a user's object, said so that the user can mend it.
//!
//! A diagnostic names the object, the field, the value as written, what is used instead, and the next step. The same
//! text becomes a line of `maesh dev`, an Event in a cluster, and a finding of `maesh check`. It never stops the rest
//! of the configuration.

mod meaning;
#[cfg(test)]
mod page;

use std::{borrow::Cow, fmt, sync::Arc};

use serde::Serialize;

use crate::kinds::{Meta, Place};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is used in place of what was written.
    Warning,
    /// An object or file could not be used at all.
    Error,
}

/// The object that a diagnostic is about. For a file that yields no object, the kind is `File` and the name its path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectRef {
    /// Kind, as in the manifest.
    pub kind: Arc<str>,
    /// Namespace; `None` for objects that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// A reference; an empty namespace is none.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), namespace: (!namespace.is_empty()).then(|| namespace.into()), name: name.into() }
    }

    /// A reference to a file.
    pub fn file(path: &str) -> Self {
        Self::new("File", "", path)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (escaped(&self.kind), escaped(&self.name));
        match self.namespace.as_deref().map(escaped) {
            Some(namespace) if self.name.is_empty() => write!(f, "{kind} without a name in {namespace}"),
            None if self.name.is_empty() => write!(f, "{kind} without a name"),
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// Why, as one stable word; the reason of the Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Reason {
    /// A file or directory cannot be read.
    UnreadableFile,
    /// A file is not YAML or JSON, or it became empty.
    UnparsableFile,
    /// A file holds only comments: the objects that it held are removed.
    OnlyComments,
    /// An object lacks what it must have, or a field has the wrong type.
    InvalidObject,
    /// The same object is written twice.
    DuplicateObject,
    /// The mesh does not read objects of this kind.
    UnknownKind,
    /// An annotation of the mesh's has a value that it cannot have.
    InvalidAnnotation,
    /// An annotation under the mesh's prefix has a name that does not exist, or names a port that does not.
    UnknownAnnotation,
    /// An annotation that this version of the mesh ignores.
    UnsupportedAnnotation,
    /// A port number that cannot be, or that is there twice.
    InvalidPort,
    /// A transport that the mesh does not carry.
    UnsupportedProtocol,
    /// A Service of a type that cannot be meshed asks for it.
    UnsupportedService,
    /// An address in an object is not one, or is not used.
    InvalidAddress,
    /// An endpoint is an address that the mesh never dials.
    ForbiddenEndpoint,
    /// The Services of a namespace need more ports of the proxies than they may have.
    TooManyPorts,
    /// A headless Service that is not reachable plainly under its own port.
    HeadlessPortDiffers,
    /// The range of own addresses is used up.
    AddressRangeExhausted,
    /// The API server refuses the Service that is to be an own address.
    OwnAddressRefused,
    /// No listening port is left in place of one that the system refuses.
    ListenPortExhausted,
    /// A proxy cannot listen on a port.
    ListenFailed,
    /// A TrafficSplit that another one, or an annotation, stands before.
    Shadowed,
    /// A TrafficSplit that cannot be used.
    SplitNotUsed,
    /// A backend of a TrafficSplit does not get its share.
    SplitBackend,
    /// A TrafficTarget, or a part of it, admits nothing.
    NothingGranted,
    /// A TrafficTarget of an old version names no rule, and admits everything by that.
    EverythingGranted,
    /// The Kubernetes API refuses or lacks what the mesh has to watch.
    WatchFailed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// How bad it is; told by the event's name, so not part of its JSON.
    #[serde(skip)]
    pub severity: Severity,
    /// The object.
    pub object: ObjectRef,
    /// Path of the field: `metadata.annotations[maesh.containo.us/scheme]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Arc<str>>,
    /// The value as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Arc<str>>,
    /// For people: object, value, what happens instead, next step.
    pub message: Arc<str>,
    /// What is used instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub using: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
    /// File, for objects from manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Character in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl Diagnostic {
    /// A finding about `object`; `text` goes on after the object's name.
    pub fn warning(reason: Reason, object: ObjectRef, text: impl fmt::Display) -> Self {
        let message = escaped(&format!("{object}: {text}")).into();
        Self {
            severity: Severity::Warning,
            object,
            field: None,
            value: None,
            message,
            using: None,
            reason,
            file: None,
            line: None,
            column: None,
        }
    }

    /// Like [`Self::warning`], for what cannot be used at all.
    pub fn error(reason: Reason, object: ObjectRef, text: impl fmt::Display) -> Self {
        Self { severity: Severity::Error, ..Self::warning(reason, object, text) }
    }

    /// A warning about `field` of the object that `meta` belongs to, with the place where it is written.
    pub fn of(reason: Reason, kind: &str, meta: &Meta, field: &str, text: impl fmt::Display) -> Self {
        let mut this = Self::warning(reason, ObjectRef::new(kind, &meta.namespace, &meta.name), text);
        this.field = Some(field.into());
        match &meta.origin {
            Some(origin) => this.at(&origin.file, origin.place_of(field)),
            None => this,
        }
    }

    /// With the value as it was written, shortened if it is very long.
    #[must_use]
    pub fn value(mut self, value: impl AsRef<str>) -> Self {
        self.value = Some(shortened(value.as_ref()).into());
        self
    }

    /// With what is used instead.
    #[must_use]
    pub fn using(mut self, using: impl Into<Arc<str>>) -> Self {
        self.using = Some(using.into());
        self
    }

    /// With the field.
    #[must_use]
    pub fn field(mut self, field: impl Into<Arc<str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// With the file that it is written in.
    #[must_use]
    pub fn file(mut self, file: &Arc<str>) -> Self {
        self.file = Some(file.clone());
        self
    }

    /// With the place where it is written.
    #[must_use]
    pub fn at(self, file: &Arc<str>, place: Place) -> Self {
        Self { line: Some(place.line), column: Some(place.column), ..self.file(file) }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", escaped(file))?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

/// Longest value that a diagnostic repeats, in characters.
const LONGEST_VALUE: usize = 200;

/// `text`, cut to a length that fits into a message.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `text` for a terminal or a log: what would move the cursor, begin a line or turn the direction of writing is escaped.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let harmful = |c: char| c.is_control() || turns(c);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// The one of `known` that was probably meant by `written`: at most two letters away, or a third of its length.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 2.max(written.len() / 3).min(4);
    known
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(written.len()) <= limit)
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        // People seldom mistype the first letter.
        .min_by_key(|(distance, candidate)| (*distance, candidate.get(..1) != written.get(..1), *candidate))
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace to get from `a` to `b`, ignoring case.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    // Annotation names are short; anything longer than this cannot be a slip of the pen.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<u8> = b.bytes().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen() {
        for (written, want) in [
            ("retry-attempt", Some("retry-attempts")),
            ("trafic-type", Some("traffic-type")),
            ("Scheme", Some("scheme")),
            ("shceme", Some("scheme")),
            ("x", None),
            ("something-else", None),
        ] {
            assert_eq!(did_you_mean(written, ["retry-attempts", "traffic-type", "scheme"]), want, "{written}");
        }
        assert_eq!(did_you_mean("wb", ["db", "web"]), Some("web"));
    }

    #[test]
    fn what_would_change_a_terminal_is_escaped() {
        for (text, want) in [
            ("plain ü text", "plain ü text"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\nb\r\0", "a\\nb\\r\\u{0}"),
            ("\u{9b}31m\u{202e}", "\\u{9b}31m\\u{202e}"),
        ] {
            assert_eq!(escaped(text), want);
        }
        let named = Diagnostic::warning(Reason::InvalidPort, ObjectRef::new("Service", "a\nb", "\u{7}"), "x\u{1b}y");
        assert_eq!(&*named.message, "Service a\\nb/\\u{7}: x\\u{1b}y");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let text = "ü".repeat(300);
        assert_eq!(shortened(&text).chars().count(), LONGEST_VALUE + 1);
        assert_eq!(shortened("short"), "short");
    }
}
