//! Shares strings that many objects repeat: namespaces, nodes, zones, port names.

use std::sync::Arc;

use ahash::AHashSet;
use parking_lot::Mutex;

/// A table of strings in use. Strings that nobody holds any longer leave it when it grows.
#[derive(Debug, Default)]
pub struct Interner(Mutex<InternTable>);

#[derive(Debug, Default)]
struct InternTable {
    strings: AHashSet<Arc<str>>,
    clean_at: usize,
}

/// The table is not cleaned below this size.
const SMALL: usize = 4096;
/// Longer texts do not repeat, and are not worth a place in the table: it would hold them until it is cleaned.
const LONGEST: usize = 256;

impl Interner {
    /// The shared copy of `text`.
    pub fn get(&self, text: &str) -> Arc<str> {
        if text.len() > LONGEST {
            return text.into();
        }
        let mut table = self.0.lock();
        if let Some(shared) = table.strings.get(text) {
            return shared.clone();
        }
        if table.strings.len() >= table.clean_at.max(SMALL) {
            table.strings.retain(|string| Arc::strong_count(string) > 1);
            table.clean_at = table.strings.len() * 2;
        }
        let shared: Arc<str> = text.into();
        table.strings.insert(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_takes_little() {
        let interner = Interner::default();
        for i in 0..20_000 {
            let length = if i % 2 == 0 { 1 << 16 } else { 200 };
            interner.get(&format!("{i}{}", "x".repeat(length)));
        }
        let bytes: usize = interner.0.lock().strings.iter().map(|string| string.len()).sum();
        assert!(bytes <= SMALL * LONGEST, "{bytes} bytes are held for nobody");
    }

    #[test]
    fn equal_strings_are_one_and_unused_ones_leave() {
        let interner = Interner::default();
        let held = interner.get("shop");
        assert!(Arc::ptr_eq(&held, &interner.get("shop")));
        for i in 0..3 * SMALL {
            interner.get(&format!("n{i}"));
        }
        assert!(interner.0.lock().strings.len() <= SMALL);
        assert!(Arc::ptr_eq(&held, &interner.get("shop")));
    }
}
