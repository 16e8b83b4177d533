//! Lists of Services, given in parts: nobody who asks makes one answer out of a large cluster.

use std::ops::Bound;

use maesh_config::ServiceName;

/// Which Services of a list are wanted, in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of one namespace.
    pub namespace: Option<String>,
    /// Those of one name.
    pub name: Option<String>,
    /// Those behind this one.
    pub after: Option<ServiceName>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPart<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// The last Service that was looked at, where there are more.
    pub next: Option<ServiceName>,
}

impl Selection {
    /// Those of `names` that are wanted, `most` of them.
    pub(super) fn of<'a>(&self, names: impl Iterator<Item = &'a ServiceName>, most: usize) -> ListPart<ServiceName> {
        let wanted = |name: &&ServiceName| self.name.as_deref().is_none_or(|it| *name.name == *it);
        let within = |name: &&ServiceName| self.namespace.as_deref().is_none_or(|it| *name.namespace == *it);
        let mut items: Vec<_> = names.take_while(within).filter(wanted).take(most + 1).cloned().collect();
        let more = items.len() > most;
        items.truncate(most);
        let next = items.last().filter(|_| more).cloned();
        ListPart { items, next }
    }

    /// Where what is wanted begins among names in their order.
    pub(super) fn bounds(&self) -> (Bound<ServiceName>, Bound<ServiceName>) {
        let first = ServiceName::new(self.namespace.as_deref().unwrap_or_default(), "");
        (self.after.clone().map_or(Bound::Included(first), Bound::Excluded), Bound::Unbounded)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn parts_of_a_list() {
        let names = ["a/web", "b/api", "b/web", "b/x", "c/web"];
        let all: BTreeSet<ServiceName> = names.iter().map(|name| name.parse().unwrap()).collect();
        for (case, namespace, name, after, want, next) in [
            ("all", None, None, None, &["a/web", "b/api"][..], Some("b/api")),
            ("the rest", None, None, Some("b/web"), &["b/x", "c/web"], None),
            ("one namespace", Some("b"), None, None, &["b/api", "b/web"], Some("b/web")),
            ("its rest", Some("b"), None, Some("b/web"), &["b/x"], None),
            ("one name", None, Some("web"), None, &["a/web", "b/web"], Some("b/web")),
            ("one Service", Some("c"), Some("web"), None, &["c/web"], None),
            ("another namespace", Some("d"), None, None, &[], None),
            ("behind one that is gone", None, None, Some("b/gone"), &["b/web", "b/x"], Some("b/x")),
        ] {
            let selection = Selection {
                namespace: namespace.map(str::to_owned),
                name: name.map(str::to_owned),
                after: after.map(|after| after.parse().unwrap()),
            };
            let part = selection.of(all.range(selection.bounds()), 2);
            let items: Vec<_> = part.items.iter().map(ToString::to_string).collect();
            assert_eq!(
                (items.iter().map(String::as_str).collect::<Vec<_>>(), part.next.map(|next| next.to_string())),
                (want.to_vec(), next.map(str::to_owned)),
                "{case}"
            );
        }
    }
}
