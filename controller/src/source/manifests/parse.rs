//! One file's text: documents, lists, objects, and what is wrong with them.

use std::sync::Arc;

use maesh_compiler::{
    diagnostic::{Diagnostic, ObjectRef, Reason},
    kinds::{BadField, OLD_PREFIX, Object, ObjectId, ObjectKind, Origin, PREFIX, Place, ReadContext, Registration},
};
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::{Spanned, UserMessageFormatter};

use super::tree::Tree;

/// Entries of a map of which the places are kept; the place of the map does for the others.
const MOST_PLACES: usize = 64;
/// Entries of a list: as many endpoints as a slice may have, and some.
const MOST_LIST_PLACES: usize = 1_024;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Its good objects, in the order written.
    pub(super) objects: Vec<Arc<Object>>,
    /// What is wrong.
    pub(super) problems: Vec<Diagnostic>,
    /// Objects of kinds that are not read.
    pub(super) unknown: Vec<Unknown>,
    /// Objects that are there but could not be read.
    pub(super) bad: Vec<ObjectId>,
    /// There is nothing in it but comments.
    pub(super) is_comments: bool,
    /// Some of it is not YAML at all.
    pub(super) broken: bool,
}

/// An object of a kind that is not read.
#[derive(Clone, Debug)]
pub(super) struct Unknown {
    pub(super) api_version: Box<str>,
    pub(super) object: ObjectRef,
    pub(super) place: Place,
}

/// Reads the text of one file. Only a document that is not YAML is an error of the file; all others stand by
/// themselves.
pub(super) fn parse(file: &Arc<str>, text: &str, door: &ReadContext) -> Parsed {
    let mut reader = Reader { file, door, before: Before::default(), parsed: Parsed::default() };
    for (lines, document) in documents(text) {
        match json_values(document) {
            Some(values) => {
                for (before, value) in values {
                    reader.before = Before { lines: lines + before.lines, ..before };
                    reader.document(value);
                }
            }
            None => {
                reader.before = Before { lines, columns: 0 };
                reader.document(document);
            }
        }
    }
    let mut parsed = reader.parsed;
    parsed.is_comments =
        text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---");
    parsed
}

/// What stands before a document in its file.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    lines: u32,
    /// Characters of the line on which it begins.
    columns: u32,
}

impl Before {
    /// What stands before that which follows `text`.
    fn after(self, text: &str) -> Self {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        match text.rsplit_once('\n') {
            None => Self { columns: self.columns.saturating_add(count(text.chars().count())), ..self },
            Some((_, last)) => {
                let lines = count(text.bytes().filter(|byte| *byte == b'\n').count());
                Self { lines: self.lines.saturating_add(lines), columns: count(last.chars().count()) }
            }
        }
    }
}

/// The values of a document that is several JSON objects one after the other, each with what stands before it; `None` when
/// it is anything else.
fn json_values(document: &str) -> Option<Vec<(Before, &str)>> {
    if !document.trim_start().starts_with('{') {
        return None;
    }
    let mut values = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(document).into_iter::<IgnoredAny>();
    let (mut start, mut before) = (0, Before::default());
    while let Some(value) = stream.next() {
        value.ok()?;
        let text = document.get(start..stream.byte_offset())?;
        let blank = text.len() - text.trim_start().len();
        before = before.after(&text[..blank]);
        values.push((before, &text[blank..]));
        before = before.after(&text[blank..]);
        start = stream.byte_offset();
    }
    (values.len() > 1).then_some(values)
}

/// The documents of a file, each with the number of lines before it. A line that begins with `---` can be nothing
/// else in YAML, so one bad document does not hide the next.
fn documents(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let mut starts = vec![(0, 0)];
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) && at > 0 {
            starts.push((u32::try_from(number).unwrap_or(u32::MAX), at));
        }
        at += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(_, at)| *at).chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(|((lines, start), end)| (lines, &text[start..end]))
}

struct Reader<'a> {
    file: &'a Arc<str>,
    door: &'a ReadContext,
    before: Before,
    parsed: Parsed,
}

impl Reader<'_> {
    fn document(&mut self, text: &str) {
        let meaningful = |line: &str| {
            let line = line.trim();
            // A directive says something about the document after it, which has a `---` of its own.
            !(line.is_empty()
                || line.starts_with(['#', '%'])
                || line.starts_with("---") && line.len() == 3
                || line == "...")
        };
        if !text.lines().any(meaningful) {
            return;
        }
        match serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options()) {
            Ok(root) if root.value.is_null() => {}
            Ok(root) => self.object(root, None),
            Err(error) => {
                let at = error.location();
                let place = self.place(at.map_or((0, 0), |at| (at.line(), at.column())));
                let why =
                    in_words(&error.render_with_formatter(&UserMessageFormatter), text, place.line - self.before.lines);
                self.broken(place, &format!("is not valid YAML: {why}"));
            }
        }
    }

    fn broken(&mut self, place: Place, why: &str) {
        self.parsed.broken = true;
        let text = format!("line {} {why}. Correct it.", place.line);
        let bad = Diagnostic::error(Reason::UnparsableFile, ObjectRef::file(self.file), text);
        self.parsed.problems.push(bad.at(self.file, place));
    }

    /// An object, or a list of them. `of_list`: API version and kind that the list gives to entries without.
    fn object(&mut self, root: Spanned<Tree>, of_list: Option<(&str, &str)>) {
        let place = self.place_of(&root);
        let tree = root.value;
        if !matches!(tree, Tree::Map(_)) {
            self.broken(place, "is not an object with apiVersion and kind");
            return;
        }
        let usual = of_list.unwrap_or_default();
        let api_version = tree.text("apiVersion").unwrap_or(usual.0).to_owned();
        let kind = tree.text("kind").unwrap_or(usual.1).to_owned();
        let named = |key: &str| tree.get("metadata").and_then(|metadata| metadata.value.text(key)).unwrap_or_default();
        let known = ObjectKind::of(&api_version, &kind);
        let namespace = match named("namespace") {
            // As it is applied, and as it is called everywhere else.
            "" if known.is_some_and(ObjectKind::namespaced) => "default",
            written => written,
        };
        let object = ObjectRef::new(if kind.is_empty() { "object" } else { &kind }, namespace, named("name"));
        if api_version.is_empty() || kind.is_empty() {
            let of_chart = is_of_chart(self.file);
            let text = if of_chart {
                "is a file of a chart of Helm, not an object; it is left out. Render the chart first, for instance with helm template."
            } else {
                "has no apiVersion or no kind; it is left out. Write both."
            };
            // Nothing in it has a name of its own.
            let object = if of_chart { ObjectRef::file(self.file) } else { object };
            let bad = Diagnostic::error(Reason::InvalidObject, object, text);
            self.parsed.problems.push(bad.at(self.file, place));
            return;
        }
        if let Some(entry_kind) = kind.strip_suffix("List") {
            return self.list(tree, &api_version, entry_kind, place, object);
        }
        match known {
            Some(kind) => self.known(kind, tree, place, object),
            None => self.parsed.unknown.push(Unknown { api_version: api_version.into(), object, place }),
        }
    }

    /// The entries of a list, which must be a list themselves, or nothing: `kubectl get` prints an empty one as null.
    fn list(&mut self, tree: Tree, api_version: &str, entry_kind: &str, place: Place, object: ObjectRef) {
        let Tree::Map(entries) = tree else { return };
        let items = entries.into_iter().find(|(key, _)| key == "items").map(|(_, items)| items);
        let place = items.as_ref().map_or(place, |items| self.place_of(items));
        let bad = match items.map(|items| items.value) {
            Some(Tree::List(items)) => {
                // A plain List gives its entries nothing; a ServiceList says what they are.
                let of_list = (!entry_kind.is_empty()).then_some((api_version, entry_kind));
                items.into_iter().for_each(|item| self.object(item, of_list));
                return;
            }
            Some(items) if items.is_null() => return,
            Some(_) => "items is not a list, so no object is read. Write the objects as a list under items.",
            None => "items is missing, so no object is read. Write the objects as a list under items.",
        };
        let bad = Diagnostic::error(Reason::InvalidObject, object, bad).field("items").using("nothing");
        self.parsed.problems.push(bad.at(self.file, place));
    }

    fn known(&mut self, kind: ObjectKind, tree: Tree, place: Place, object: ObjectRef) {
        let fields = self.fields(&tree);
        let origin = Origin { file: self.file.clone(), place, fields };
        let mut value = tree.to_value();
        let unquoted = texts_from_scalars(&mut value);
        let registration = kind.registration();
        let bad_version = bad_version(registration, &value);
        let read = bad_version.map_or_else(|| registration.read(&value, self.door), Err);
        match read {
            Ok((mut read, bad)) => {
                for bad in bad {
                    let place = self.place_in(&tree, place, &bad.path);
                    self.parsed.problems.push(bad.diagnostic(object.clone(), false).at(self.file, place));
                }
                let meta = read.meta_mut();
                meta.origin = Some(Arc::new(origin));
                for Unquoted { what, key, field, text } in unquoted {
                    let say = format!(
                        "{what} {key} is {text} without quotes, which Kubernetes refuses; using \"{text}\". Put it in \
                         quotes."
                    );
                    let bad = Diagnostic::of(Reason::InvalidAnnotation, kind.as_str(), meta, &field, say);
                    let reason = if what == "annotation" { bad.reason } else { Reason::InvalidObject };
                    self.parsed.problems.push(Diagnostic { reason, ..bad }.value(&text).using(text));
                }
                self.parsed.objects.push(Arc::new(read));
            }
            Err(error) => {
                let bad = error.diagnostic(object.clone(), true);
                self.parsed.problems.push(bad.at(self.file, self.place_in(&tree, place, &error.path)));
                if !object.name.is_empty() {
                    let namespace = match (kind.namespaced(), object.namespace) {
                        (false, _) => "".into(),
                        (true, namespace) => namespace.unwrap_or_else(|| "default".into()),
                    };
                    self.parsed.bad.push(ObjectId::new(kind, namespace, object.name));
                }
            }
        }
    }

    /// Where the field at `path` of an object begins, or the nearest thing around it that is written.
    fn place_in(&self, object: &Tree, place: Place, path: &str) -> Place {
        let (mut inside, mut place, mut rest) = (object, place, path);
        while let Some((at, behind)) = inside.step(rest) {
            (inside, place, rest) = (&at.value, self.place_of(at), behind);
        }
        place
    }

    fn place_of(&self, at: &Spanned<Tree>) -> Place {
        self.place((at.referenced.line(), at.referenced.column()))
    }

    /// The place in the file of a line and column of the document.
    fn place(&self, (line, column): (u64, u64)) -> Place {
        let count = |number: u64| u32::try_from(number.max(1)).unwrap_or(u32::MAX);
        let columns = if line <= 1 { self.before.columns } else { 0 };
        Place { line: self.before.lines.saturating_add(count(line)), column: columns.saturating_add(count(column)) }
    }

    /// Places of the fields that a diagnostic may be about.
    fn fields(&self, tree: &Tree) -> Vec<(Box<str>, Place)> {
        let mut fields = Vec::new();
        if let Some(metadata) = tree.get("metadata") {
            fields.push(("metadata".into(), self.place_of(metadata)));
            if let Tree::Map(entries) = &metadata.value {
                fields.extend(entries.iter().map(|(key, at)| (format!("metadata.{key}").into(), self.place_of(at))));
            }
            if let Some(Spanned { value: Tree::Map(annotations), .. }) = metadata.value.get("annotations") {
                let ours = annotations.iter().filter(|(key, _)| is_ours(key));
                fields.extend(ours.map(|(key, at)| (format!("metadata.annotations[{key}]").into(), self.place_of(at))));
            }
        }
        if let Tree::Map(entries) = tree {
            for (key, at) in entries.iter().filter(|(key, _)| key != "metadata") {
                self.places_below(key, at, &mut fields);
            }
        }
        fields
    }

    /// Places of a field, of the fields in it, and of those in its lists of maps.
    fn places_below(&self, path: &str, at: &Spanned<Tree>, fields: &mut Vec<(Box<str>, Place)>) {
        fields.push((path.into(), self.place_of(at)));
        let Tree::Map(entries) = &at.value else { return self.places_of_list(path, at, fields) };
        for (key, at) in entries.iter().take(MOST_PLACES) {
            let path = format!("{path}.{key}");
            fields.push((path.as_str().into(), self.place_of(at)));
            self.places_of_list(&path, at, fields);
        }
    }

    fn places_of_list(&self, path: &str, at: &Spanned<Tree>, fields: &mut Vec<(Box<str>, Place)>) {
        let Tree::List(list) = &at.value else { return };
        for (i, entry) in list.iter().take(MOST_LIST_PLACES).enumerate() {
            let path = format!("{path}[{i}]");
            fields.push((path.as_str().into(), self.place_of(entry)));
            if let Tree::Map(entries) = &entry.value {
                let below = entries.iter().take(MOST_PLACES);
                fields.extend(below.map(|(key, at)| (format!("{path}.{key}").into(), self.place_of(at))));
            }
        }
    }
}

/// Whether a file is called as those beside the templates of a chart: `Chart.yaml`, `values.yaml`, `values-test.yaml`.
fn is_of_chart(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or_default();
    name == "Chart"
        || name == "values"
        || name.starts_with("values-")
        || name.starts_with("values.")
        || name.ends_with(".values")
}

/// What is wrong with YAML, in words for its author. `line` counts from the beginning of `document`.
fn in_words(why: &str, document: &str, line: u32) -> String {
    let written = document.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
    if written.contains("{{") {
        return "it is a template; render it first, for instance with helm template".to_owned();
    }
    for (limit, words) in [
        ("RecordedAnchorEvents", REPEATED_TOO_OFTEN),
        ("alias replay", REPEATED_TOO_OFTEN),
        ("Aliases", REPEATED_TOO_OFTEN),
        ("Depth", "lists and maps in it are too deep inside each other"),
        ("limits breached", "it holds more than the mesh reads of one document"),
    ] {
        if why.contains(limit) {
            return words.to_owned();
        }
    }
    let first = why.lines().next().unwrap_or_default();
    first.split(" at line ").next().unwrap_or(first).trim_start_matches("error: ").to_owned()
}

fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX) || key.starts_with(OLD_PREFIX)
}

/// A text that someone wrote without quotes.
struct Unquoted {
    what: &'static str,
    key: String,
    field: String,
    text: String,
}

/// Takes numbers and booleans that someone wrote without quotes as the texts that they were meant to be, and drops empty
/// ones: in annotations, labels and selectors. Returns those that count; annotations of others do not.
fn texts_from_scalars(object: &mut Value) -> Vec<Unquoted> {
    let mut all = Vec::new();
    for (what, pointer, path) in [
        ("annotation", "/metadata/annotations", "metadata.annotations"),
        ("label", "/metadata/labels", "metadata.labels"),
        ("selector", "/spec/selector", "spec.selector"),
    ] {
        let Some(Value::Object(entries)) = object.pointer_mut(pointer) else { continue };
        entries.retain(|_, value| !value.is_null());
        for (key, value) in entries {
            if let Value::Number(_) | Value::Bool(_) = value {
                let text = value.to_string();
                if what != "annotation" || is_ours(key) {
                    let (field, text) = (format!("{path}[{key}]"), text.clone());
                    all.push(Unquoted { what, key: key.clone(), field, text });
                }
                *value = Value::String(text);
            }
        }
    }
    all
}

/// What is wrong where the object is of a version that is not read.
fn bad_version(kind: &Registration, object: &Value) -> Option<BadField> {
    let written = object.get("apiVersion")?.as_str()?;
    let version = written.rsplit('/').next().unwrap_or_default();
    (!kind.versions.contains(&version)).then(|| BadField::version(kind, written))
}

/// Values that the anchors and aliases of a file may stand for: a file of a few lines could stand for millions, and
/// nothing else would be read meanwhile.
const REPEATED: usize = 100_000;
const REPEATED_TOO_OFTEN: &str = "its anchors and aliases stand for more than 100000 values";

fn options() -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    // The size of the file is the bound; a list of all objects of a cluster is one document.
    budget.max_events = 50_000_000;
    budget.max_nodes = 50_000_000;
    budget.max_recorded_anchor_events = REPEATED;
    let mut options = serde_saphyr::Options::default();
    options.alias_limits.max_total_replayed_events = REPEATED;
    options.budget = Some(budget);
    options.with_snippet = false;
    options.strict_booleans = true;
    options
}

#[cfg(test)]
mod tests;
