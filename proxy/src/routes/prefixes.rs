//! Prefixes, and all of them that a text begins with.

/// Sorted prefixes, each with a list of numbers.
///
/// All prefixes of a text lie on one path: the greatest entry that is not above the text is the longest one, or that one's
/// `shorter` leads to it.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    prefix: Box<str>,
    numbers: Vec<u32>,
    /// The longest other entry that this one begins with.
    shorter: Option<usize>,
}

impl Prefixes {
    pub(super) fn new<P: Into<Box<str>>>(lists: impl IntoIterator<Item = (P, Vec<u32>)>) -> Self {
        let entry = |(prefix, numbers): (P, _)| Entry { prefix: prefix.into(), numbers, shorter: None };
        let mut entries: Vec<Entry> = lists.into_iter().map(entry).collect();
        entries.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
        for at in 1..entries.len() {
            let mut shorter = Some(at - 1);
            while let Some(other) = shorter.filter(|other| !entries[at].prefix.starts_with(&*entries[*other].prefix)) {
                shorter = entries[other].shorter;
            }
            entries[at].shorter = shorter;
        }
        Self(entries)
    }

    /// The lists of all prefixes of `text`, the longest first.
    pub(super) fn of<'s>(&'s self, text: &str) -> impl Iterator<Item = &'s [u32]> {
        let above = self.0.partition_point(|entry| &*entry.prefix <= text);
        let mut at = above.checked_sub(1);
        while let Some(entry) = at.map(|at| &self.0[at]).filter(|entry| !text.starts_with(&*entry.prefix)) {
            at = entry.shorter;
        }
        std::iter::successors(at, |at| self.0[*at].shorter).map(|at| &*self.0[at].numbers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_prefixes_are_found(
            prefixes in prop::collection::btree_set("[ab/]{0,5}", 0..20),
            text in "[ab/]{0,8}",
        ) {
            let numbered: Vec<(&str, u32)> = prefixes.iter().map(String::as_str).zip(0..).collect();
            let table = Prefixes::new(numbered.iter().map(|(prefix, number)| (*prefix, vec![*number])));
            let found: Vec<u32> = table.of(&text).map(|list| list[0]).collect();
            let begins = |(prefix, _): &&(&str, u32)| text.starts_with(*prefix);
            let mut want: Vec<_> = numbered.iter().filter(begins).collect();
            want.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
            prop_assert_eq!(found, want.iter().map(|(_, number)| *number).collect::<Vec<_>>());
        }
    }
}
