//! Nothing by itself: `tests/chart` checks `charts/maesh`.
