//! Which TrafficTargets of a ServiceAccount count: the oldest ones.
//!
//! All of them are looked at when one changes, and whenever an endpoint does that runs as the ServiceAccount. Without a bound, who
//! may write TrafficTargets in one namespace could keep the compiler busy for everybody. A new target never takes away what an
//! older one grants. One beyond the bound grants nothing.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::kinds::TrafficTarget;

/// Targets of one ServiceAccount that count.
pub(crate) const MOST_TARGETS: usize = 1_000;

/// When a target was made, and its name.
type Age = (Option<Timestamp>, Arc<str>);

/// The targets of one ServiceAccount, of which `MOST` count.
#[derive(Debug, Default)]
pub(super) struct TargetsByAge<const MOST: usize = MOST_TARGETS> {
    counting: BTreeMap<Age, Arc<TrafficTarget>>,
    beyond: BTreeMap<Age, Arc<TrafficTarget>>,
}

/// What a change of one target changes besides it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Other targets count than before, or say something else.
    pub(super) of_counting: bool,
    /// The name of a target that counts now and did not, or the other way round.
    pub(super) crossed: Option<Arc<str>>,
}

impl<const MOST: usize> TargetsByAge<MOST> {
    /// Those that count, the oldest first.
    pub(super) fn counting(&self) -> impl Iterator<Item = &Arc<TrafficTarget>> {
        self.counting.values()
    }

    /// Whether this target is one too many.
    pub(super) fn is_beyond(&self, target: &TrafficTarget) -> bool {
        self.beyond.contains_key(&age(target))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counting.is_empty()
    }

    pub(super) fn insert(&mut self, target: Arc<TrafficTarget>) -> Effect {
        let age = age(&target);
        let is_full = self.counting.len() >= MOST;
        if is_full && self.counting.last_key_value().is_some_and(|(youngest, _)| *youngest < age) {
            self.beyond.insert(age, target);
            return Effect::default();
        }
        self.counting.insert(age, target);
        let youngest = if is_full { self.counting.pop_last() } else { None };
        let crossed = youngest.as_ref().map(|((_, name), _)| name.clone());
        self.beyond.extend(youngest);
        Effect { of_counting: true, crossed }
    }

    pub(super) fn remove(&mut self, target: &TrafficTarget) -> Effect {
        let age = age(target);
        if self.counting.remove(&age).is_none() {
            self.beyond.remove(&age);
            return Effect::default();
        }
        let oldest = self.beyond.pop_first();
        let crossed = oldest.as_ref().map(|((_, name), _)| name.clone());
        self.counting.extend(oldest);
        Effect { of_counting: true, crossed }
    }
}

fn age(target: &TrafficTarget) -> Age {
    (target.meta.created, target.meta.name.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::kinds::{Object, ObjectKind, ReadContext};

    fn target(name: u8, created: u8) -> Arc<TrafficTarget> {
        let created = if created == 0 { json!(null) } else { json!(format!("2026-01-0{created}T00:00:00Z")) };
        let value = json!({"metadata": {"namespace": "shop", "name": format!("t{name}"), "creationTimestamp": created},
            "spec": {"destination": {"kind": "ServiceAccount", "name": "b"}}});
        match Object::read(ObjectKind::TrafficTarget, &value, &ReadContext::default()).expect("a target") {
            Object::TrafficTarget(target) => Arc::new(target),
            other => panic!("{other:?}"),
        }
    }

    /// The names of those that count, and of the others, as they should be.
    fn wanted(there: &BTreeMap<u8, Arc<TrafficTarget>>) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let mut all: Vec<_> = there.values().map(|target| age(target)).collect();
        all.sort();
        let mut names: Vec<_> = all.into_iter().map(|(_, name)| name).collect();
        let beyond = names.split_off(names.len().min(3));
        (names, beyond)
    }

    proptest! {
        #[test]
        fn the_oldest_count_and_what_changes_is_said(steps in prop::collection::vec((0..8_u8, 0..3_u8, prop::bool::ANY), 0..40)) {
            let (mut targets, mut there) = (TargetsByAge::<3>::default(), BTreeMap::new());
            for (name, created, stays) in steps {
                let (counted, before) = wanted(&there);
                let mut effects = Vec::new();
                if let Some(old) = there.remove(&name) {
                    effects.push(targets.remove(&old));
                }
                if stays {
                    effects.push(targets.insert(target(name, created)));
                    there.insert(name, target(name, created));
                }
                let (counting, beyond) = wanted(&there);
                let names: Vec<_> = targets.counting().map(|target| target.meta.name.clone()).collect();
                prop_assert_eq!(&names, &counting);
                prop_assert!(there.values().all(|it| targets.is_beyond(it) == beyond.contains(&it.meta.name)));
                prop_assert_eq!(targets.is_empty(), there.is_empty());
                prop_assert!(counting == counted || effects.iter().any(|effect| effect.of_counting));
                let own: Arc<str> = format!("t{name}").into();
                let others = there.values().map(|it| &it.meta.name).filter(|it| **it != own);
                for crossed in others.filter(|it| beyond.contains(*it) != before.contains(*it)) {
                    prop_assert!(effects.iter().any(|effect| effect.crossed.as_ref() == Some(crossed)), "{crossed}");
                }
            }
        }
    }
}
