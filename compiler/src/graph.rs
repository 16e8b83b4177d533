//! Which units of compilation read which facts, and which units have to run again.
//!
//! A unit's reads are recorded while it runs and replace those of its last run. A changed fact marks the units that
//! read it; the marked units form a worklist. The graph holds the edges only: a fact that nobody reads and a unit that
//! reads nothing take no memory.

use std::{collections::BTreeSet, hash::Hash};

use ahash::AHashMap;

/// Edges between facts and units, and the units that have to run.
#[derive(Debug)]
pub(crate) struct Graph<F, U> {
    facts: NodeTable<F>,
    units: NodeTable<U>,
    marked: BTreeSet<U>,
}

impl<F: Clone + Eq + Hash, U: Clone + Eq + Hash + Ord> Graph<F, U> {
    pub(crate) fn new() -> Self {
        Self { facts: NodeTable::new(), units: NodeTable::new(), marked: BTreeSet::new() }
    }

    /// `unit` has to run.
    pub(crate) fn mark(&mut self, unit: U) {
        self.marked.insert(unit);
    }

    /// `fact` changed: the units that read it have to run.
    pub(crate) fn changed(&mut self, fact: &F) {
        let readers = self.facts.edges_of(fact);
        self.marked.extend(readers.iter().filter_map(|unit| self.units.key(*unit).cloned()));
    }

    /// Takes the next unit that has to run: the smallest one.
    pub(crate) fn pop(&mut self) -> Option<U> {
        self.marked.pop_first()
    }

    /// Replaces what `unit` reads by `reads`, in any order, repetitions allowed.
    pub(crate) fn record(&mut self, unit: &U, reads: impl IntoIterator<Item = F>) {
        let mut now: Vec<u32> = reads.into_iter().map(|fact| self.facts.id(fact)).collect();
        now.sort_unstable();
        now.dedup();
        let known = self.units.ids.get(unit).copied();
        if known.is_none() && now.is_empty() {
            return;
        }
        let unit = known.unwrap_or_else(|| self.units.id(unit.clone()));
        for fact in &now {
            self.facts.add(*fact, unit);
        }
        for fact in self.units.replace(unit, now) {
            self.facts.remove(fact, unit);
        }
    }

    /// How many facts, units and edges are held.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        let edges = |rows: &[Row<F>]| rows.iter().map(|row| row.edges.len()).sum();
        (self.facts.ids.len(), self.units.ids.len(), edges(&self.facts.rows))
    }
}

/// Keys by number, each with its edges to the numbers of another table.
#[derive(Debug)]
struct NodeTable<K> {
    ids: AHashMap<K, u32>,
    rows: Vec<Row<K>>,
    /// Rows without a key.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Row<K> {
    key: Option<K>,
    /// Sorted, without repetitions.
    edges: Vec<u32>,
}

impl<K: Clone + Eq + Hash> NodeTable<K> {
    fn new() -> Self {
        Self { ids: AHashMap::new(), rows: Vec::new(), free: Vec::new() }
    }

    /// The number of `key`, which is given one if it has none.
    fn id(&mut self, key: K) -> u32 {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let row = Row { key: Some(key.clone()), edges: Vec::new() };
        let id = match self.free.pop() {
            Some(id) => {
                self.rows[id as usize] = row;
                id
            }
            None => {
                self.rows.push(row);
                // Each row takes more than 4 bytes: memory ends before the numbers do.
                (self.rows.len() - 1) as u32
            }
        };
        self.ids.insert(key, id);
        id
    }

    fn key(&self, id: u32) -> Option<&K> {
        self.rows.get(id as usize)?.key.as_ref()
    }

    fn edges_of(&self, key: &K) -> &[u32] {
        self.ids.get(key).map_or(&[], |id| &self.rows[*id as usize].edges)
    }

    fn add(&mut self, id: u32, edge: u32) {
        let edges = &mut self.rows[id as usize].edges;
        if let Err(at) = edges.binary_search(&edge) {
            edges.insert(at, edge);
        }
    }

    fn remove(&mut self, id: u32, edge: u32) {
        let edges = &mut self.rows[id as usize].edges;
        if let Ok(at) = edges.binary_search(&edge) {
            edges.remove(at);
            self.drop_if_empty(id);
        }
    }

    /// Replaces the edges of `id`. Returns those that it had and has not.
    fn replace(&mut self, id: u32, mut edges: Vec<u32>) -> Vec<u32> {
        edges.shrink_to_fit();
        let row = &mut self.rows[id as usize];
        let mut gone = std::mem::replace(&mut row.edges, edges);
        gone.retain(|edge| row.edges.binary_search(edge).is_err());
        self.drop_if_empty(id);
        gone
    }

    fn drop_if_empty(&mut self, id: u32) {
        let row = &mut self.rows[id as usize];
        if row.edges.is_empty()
            && let Some(key) = row.key.take()
        {
            row.edges = Vec::new();
            self.ids.remove(&key);
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests;
