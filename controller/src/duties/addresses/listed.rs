//! What a watch says is there, reduced to what is needed of it.
//!
//! It may be a moment behind: good enough for what can be done twice, not for what must not be given twice. Objects belong
//! to own addresses, by name: those of one address are found without a look at the others, and which addresses have news
//! is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    pin::Pin,
};

use futures_util::{Stream, StreamExt as _};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

type Events<K> = Pin<Box<dyn Stream<Item = Result<Event<K>, watcher::Error>> + Send>>;

/// Objects of kind `K`, of each a `T`, by name.
pub(super) struct Listed<K, T> {
    what: &'static str,
    events: Events<K>,
    read: fn(K) -> Option<T>,
    /// The own address that an object belongs to.
    address: fn(&str, &T) -> Option<String>,
    /// Names of objects by own address.
    of: BTreeMap<String, BTreeSet<String>>,
    /// Own addresses of which there is news since this was last taken.
    touched: BTreeSet<String>,
    /// What came so far of a list that is not complete.
    coming: BTreeMap<String, T>,
    there: Option<BTreeMap<String, T>>,
    failed: bool,
}

impl<K, T> Listed<K, T>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    T: PartialEq,
{
    /// Watches those with `labels`, while [`Self::changed`] is awaited. What `read` does not read counts as not there.
    pub(super) fn new(
        what: &'static str,
        api: Api<K>,
        labels: &str,
        read: fn(K) -> Option<T>,
        address: fn(&str, &T) -> Option<String>,
    ) -> Self {
        let events = watcher(api, crate::api::watching().labels(labels)).default_backoff();
        Self::of_events(what, Box::pin(events), read, address)
    }

    fn of_events(
        what: &'static str,
        events: Events<K>,
        read: fn(K) -> Option<T>,
        address: fn(&str, &T) -> Option<String>,
    ) -> Self {
        Self {
            what,
            events,
            read,
            address,
            of: BTreeMap::new(),
            touched: BTreeSet::new(),
            coming: BTreeMap::new(),
            there: None,
            failed: false,
        }
    }

    /// Those of one own address.
    pub(super) fn of<'a>(&'a self, address: &str) -> impl Iterator<Item = (&'a String, &'a T)> {
        let names = self.of.get(address).into_iter().flatten();
        names.filter_map(|name| self.there.as_ref()?.get_key_value(name))
    }

    /// The own addresses to which any belong.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &String> {
        self.of.keys()
    }

    /// The own addresses of which there is news since the last call.
    pub(super) fn take_touched(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched)
    }

    /// What is there; `None` until everything was listed once.
    pub(super) fn there(&self) -> Option<&BTreeMap<String, T>> {
        self.there.as_ref()
    }

    /// Takes in what was just written, so that its event is no news.
    pub(super) fn put(&mut self, name: &str, written: T) {
        self.set(name, Some(written));
    }

    /// Takes in that it was just deleted.
    pub(super) fn forget(&mut self, name: &str) {
        self.set(name, None);
    }

    /// Sets what is there under a name; returns the own addresses that this concerns.
    fn set(&mut self, name: &str, now: Option<T>) -> Vec<String> {
        let Some(there) = &mut self.there else { return Vec::new() };
        let before = there.remove(name).and_then(|before| (self.address)(name, &before));
        let after = now.as_ref().and_then(|now| (self.address)(name, now));
        if let Some(now) = now {
            there.insert(name.to_owned(), now);
        }
        if before != after {
            if let Some(before) = &before
                && let Some(names) = self.of.get_mut(before)
            {
                names.remove(name);
                if names.is_empty() {
                    self.of.remove(before);
                }
            }
            if let Some(after) = &after {
                self.of.entry(after.clone()).or_default().insert(name.to_owned());
            }
        }
        before.into_iter().chain(after).collect()
    }

    /// Takes over a complete list. Whether it is news.
    fn replace(&mut self, now: BTreeMap<String, T>) -> bool {
        let before = self.there.replace(now);
        let now = self.there.iter().flatten();
        let differs = |(name, it): &(&String, &T)| before.as_ref().and_then(|before| before.get(*name)) != Some(*it);
        let changed = now.clone().filter(differs);
        let is_gone = |(name, _): &(&String, &T)| self.there.as_ref().is_none_or(|now| !now.contains_key(*name));
        let gone = before.iter().flatten().filter(is_gone);
        self.touched.extend(changed.chain(gone).filter_map(|(name, it)| (self.address)(name, it)));
        self.of.clear();
        for (name, it) in now {
            if let Some(address) = (self.address)(name, it) {
                self.of.entry(address).or_default().insert(name.clone());
            }
        }
        before != self.there
    }

    /// Waits for news. May be dropped at any time; an error is tried again by the watch itself, and what it missed it
    /// lists.
    pub(super) async fn changed(&mut self) {
        loop {
            match self.events.next().await {
                None => std::future::pending().await,
                Some(Ok(event)) => {
                    self.failed = false;
                    if self.take_in(event) {
                        return;
                    }
                }
                Some(Err(error)) => self.note(&error),
            }
        }
    }

    /// Whether it is news.
    fn take_in(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(object) => {
                let name = object.meta().name.clone();
                self.coming.extend(name.zip((self.read)(object)));
            }
            Event::InitDone => {
                let now = std::mem::take(&mut self.coming);
                return self.replace(now);
            }
            Event::Apply(object) => {
                let Some(name) = object.meta().name.clone() else { return false };
                let now = (self.read)(object);
                return self.change(&name, now);
            }
            Event::Delete(object) => return object.meta().name.as_ref().is_some_and(|name| self.change(name, None)),
        }
        false
    }

    /// What is there under a name. Whether that is news.
    fn change(&mut self, name: &str, now: Option<T>) -> bool {
        let is_news = self.there.as_ref().is_some_and(|there| there.get(name) != now.as_ref());
        if is_news {
            let touched = self.set(name, now);
            self.touched.extend(touched);
        }
        is_news
    }

    /// Said once, and aloud only where it holds something up.
    fn note(&mut self, error: &watcher::Error) {
        let (what, first) = (self.what, !std::mem::replace(&mut self.failed, true));
        if first && self.there.is_none() {
            tracing::warn!(what, %error, "own addresses wait for a list; trying again");
        } else {
            tracing::debug!(what, %error, "a watch failed; trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn node(name: &str, zone: &str) -> Node {
        let labels = Some([("zone".to_owned(), zone.to_owned())].into());
        Node { metadata: ObjectMeta { name: Some(name.into()), labels, ..ObjectMeta::default() }, ..Node::default() }
    }

    fn zone(node: Node) -> Option<String> {
        node.metadata.labels?.remove("zone").filter(|zone| !zone.is_empty())
    }

    #[test]
    fn only_what_is_new_is_news() {
        let address = |_: &str, zone: &String| Some(zone.clone());
        let mut listed = Listed::of_events("nodes", Box::pin(futures_util::stream::empty()), zone, address);
        use Event::{Apply, Delete, Init, InitApply, InitDone};
        for (case, event, news, there) in [
            ("a list begins", Init, false, None),
            ("and goes on", InitApply(node("a", "1")), false, None),
            ("until it is complete", InitDone, true, Some("a=1")),
            ("the same again", Apply(node("a", "1")), false, Some("a=1")),
            ("changed", Apply(node("a", "2")), true, Some("a=2")),
            ("another", Apply(node("b", "1")), true, Some("a=2 b=1")),
            ("no longer to be read", Apply(node("b", "")), true, Some("a=2")),
            ("not to be read still", Apply(node("b", "")), false, Some("a=2")),
            ("a list begins anew", Init, false, Some("a=2")),
            ("with the same", InitApply(node("a", "2")), false, Some("a=2")),
            ("is no news", InitDone, false, Some("a=2")),
            ("gone", Delete(node("a", "2")), true, Some("")),
            ("gone again", Delete(node("a", "2")), false, Some("")),
        ] {
            assert_eq!(listed.take_in(event), news, "{case}");
            let text = |there: &BTreeMap<String, String>| {
                there.iter().map(|(name, zone)| format!("{name}={zone}")).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(listed.there().map(text).as_deref(), there, "{case}");
            let mut grouped: Vec<_> = listed.addresses().flat_map(|zone| listed.of(zone)).collect();
            grouped.sort();
            assert_eq!(grouped, listed.there().into_iter().flatten().collect::<Vec<_>>(), "{case}");
            assert_eq!(!listed.take_touched().is_empty(), news, "{case}");
        }
        assert!(listed.changed().now_or_never().is_none(), "a watch that ended brings no news");
    }
}
