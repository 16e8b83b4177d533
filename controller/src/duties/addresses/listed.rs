//! What a watch says is there, reduced to what is needed of it.
//!
//! It may be a moment behind: good enough for what can be done twice, not for what must not be given twice.

use std::{collections::BTreeMap, fmt, pin::Pin};

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
    pub(super) fn new(what: &'static str, api: Api<K>, labels: &str, read: fn(K) -> Option<T>) -> Self {
        let events = watcher(api, crate::api::watching().labels(labels)).default_backoff();
        Self { what, events: Box::pin(events), read, coming: BTreeMap::new(), there: None, failed: false }
    }

    /// What is there; `None` until everything was listed once.
    pub(super) fn there(&self) -> Option<&BTreeMap<String, T>> {
        self.there.as_ref()
    }

    /// Takes in what was just written, so that its event is no news.
    pub(super) fn put(&mut self, name: &str, written: T) {
        self.there.as_mut().map(|there| there.insert(name.to_owned(), written));
    }

    /// Takes in that it was just deleted.
    pub(super) fn forget(&mut self, name: &str) {
        self.there.as_mut().map(|there| there.remove(name));
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
                let now = Some(std::mem::take(&mut self.coming));
                return std::mem::replace(&mut self.there, now) != self.there;
            }
            Event::Apply(object) => {
                let (Some(name), Some(there)) = (object.meta().name.clone(), &mut self.there) else { return false };
                return match (self.read)(object) {
                    Some(now) if there.get(&name) == Some(&now) => false,
                    Some(now) => {
                        there.insert(name, now);
                        true
                    }
                    None => there.remove(&name).is_some(),
                };
            }
            Event::Delete(object) => {
                let name = object.meta().name.as_ref();
                return name.is_some_and(|name| self.there.as_mut().is_some_and(|there| there.remove(name).is_some()));
            }
        }
        false
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
        let mut listed = Listed {
            what: "nodes",
            events: Box::pin(futures_util::stream::empty()),
            read: zone,
            coming: BTreeMap::new(),
            there: None,
            failed: false,
        };
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
        }
        assert!(listed.changed().now_or_never().is_none(), "a watch that ended brings no news");
    }
}
