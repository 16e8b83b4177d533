use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn popped(graph: &mut Graph<&'static str, u8>) -> Vec<u8> {
    std::iter::from_fn(|| graph.pop()).collect()
}

#[test]
fn a_changed_fact_marks_who_read_it_last() {
    let mut graph = Graph::new();
    graph.record(&1, ["a", "b", "a"]);
    graph.record(&2, ["b"]);
    assert_eq!(graph.size(), (2, 2, 3));
    for (case, changed, want) in
        [("one reader", "a", &[1][..]), ("two readers", "b", &[1, 2]), ("nobody read it", "c", &[])]
    {
        graph.changed(&changed);
        assert_eq!(popped(&mut graph), want, "{case}");
    }
    graph.record(&1, ["c"]);
    graph.changed(&"a");
    graph.changed(&"b");
    assert_eq!(popped(&mut graph), [2], "what was read before counts no more");
    graph.record(&1, []);
    graph.record(&2, []);
    assert_eq!(graph.size(), (0, 0, 0));
}

/// A unit sums up some cells: those that its own list names, which is a cell too. Cell `n + UNITS` holds the sum of unit
/// `n`, so units depend on each other, on smaller ones only.
const UNITS: usize = 5;
const CELLS: usize = 6;

type Cells = BTreeMap<usize, u64>;

#[derive(Clone, Debug)]
enum Change {
    Cell(usize, Option<u64>),
    Wanted(usize, Vec<usize>),
}

fn change() -> impl Strategy<Value = Change> {
    let wanted = (0..UNITS, prop::collection::vec(0..CELLS + UNITS, 0..4));
    prop_oneof![
        (0..CELLS, prop::option::of(0..9_u64)).prop_map(|(cell, value)| Change::Cell(cell, value)),
        // A unit reads sums of smaller units only.
        wanted.prop_map(|(unit, cells)| {
            Change::Wanted(unit, cells.into_iter().filter(|cell| *cell < CELLS + unit).collect())
        }),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Fact {
    Cell(usize),
    Wanted(usize),
}

#[derive(Debug, Default, PartialEq)]
struct World {
    cells: Cells,
    wanted: BTreeMap<usize, Vec<usize>>,
}

impl World {
    /// Runs one unit. Returns what it read, and whether its sum changed.
    fn run(&mut self, unit: usize) -> (Vec<Fact>, bool) {
        let mut reads = vec![Fact::Wanted(unit)];
        let wanted = self.wanted.get(&unit).cloned().unwrap_or_default();
        reads.extend(wanted.iter().map(|cell| Fact::Cell(*cell)));
        // An absent cell is a read as well.
        let sum = wanted.iter().filter_map(|cell| self.cells.get(cell)).sum::<u64>();
        let old = if sum == 0 { self.cells.remove(&(CELLS + unit)) } else { self.cells.insert(CELLS + unit, sum) };
        (reads, old.unwrap_or(0) != sum)
    }
}

proptest! {
    /// Whatever changes: running what is marked gives what running everything gives, no unit runs twice for one change,
    /// and none runs of which nothing that it read has changed.
    #[test]
    fn marked_units_are_enough(changes in prop::collection::vec(change(), 1..40)) {
        let mut graph: Graph<Fact, usize> = Graph::new();
        let mut world = World::default();
        (0..UNITS).for_each(|unit| graph.mark(unit));
        let mut last_read: BTreeMap<usize, Vec<Fact>> = BTreeMap::new();
        for (step, change) in changes.into_iter().enumerate() {
            let mut changed = Vec::new();
            match change {
                Change::Cell(cell, value) => {
                    match value {
                        Some(value) => world.cells.insert(cell, value),
                        None => world.cells.remove(&cell),
                    };
                    changed.push(Fact::Cell(cell));
                }
                Change::Wanted(unit, cells) => {
                    world.wanted.insert(unit, cells);
                    changed.push(Fact::Wanted(unit));
                }
            }
            changed.iter().for_each(|fact| graph.changed(fact));
            let mut ran = BTreeSet::new();
            while let Some(unit) = graph.pop() {
                prop_assert!(ran.insert(unit), "unit {} ran twice", unit);
                let had_reason = last_read.get(&unit).is_some_and(|read| read.iter().any(|fact| changed.contains(fact)));
                prop_assert!(step == 0 || had_reason, "unit {} ran for nothing", unit);
                let (reads, news) = world.run(unit);
                last_read.insert(unit, reads.clone());
                graph.record(&unit, reads);
                if news {
                    changed.push(Fact::Cell(CELLS + unit));
                    graph.changed(&Fact::Cell(CELLS + unit));
                }
            }
            let before: Cells = world.cells.clone();
            (0..UNITS).for_each(|unit| { world.run(unit); });
            prop_assert_eq!(&before, &world.cells);
        }
        let edges = last_read.values().map(|read| read.iter().map(|f| format!("{f:?}")).collect::<BTreeSet<_>>().len());
        prop_assert_eq!(graph.size().2, edges.sum::<usize>());
        (0..UNITS).for_each(|unit| graph.record(&unit, []));
        prop_assert_eq!(graph.size(), (0, 0, 0));
    }

    /// Units that come and go leave no rows behind: the tables are as large as they ever had to be.
    #[test]
    fn rows_are_used_again(rounds in prop::collection::vec(prop::collection::vec((0..50_u16, 0..50_u16), 1..8), 1..20)) {
        let mut graph: Graph<u16, u16> = Graph::new();
        let (mut most_units, mut most_facts) = (0, 0);
        for pairs in rounds {
            for (unit, fact) in &pairs {
                graph.record(unit, [*fact]);
                most_units = most_units.max(graph.size().1);
                most_facts = most_facts.max(graph.size().0 + 1);
            }
            pairs.iter().for_each(|(unit, _)| graph.record(unit, []));
        }
        prop_assert!(graph.units.rows.len() <= most_units);
        prop_assert!(graph.facts.rows.len() <= most_facts);
    }
}
