//! What did harm is not tried again, whoever leads: it is remembered at the Lease, the one object that every leader may
//! write. It goes with the mesh.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

use super::super::{Change, ClusterError, Right, cluster::answer};

/// The Lease's annotation that says it: a hash of the changes, and why they are not made.
const HELD: &str = "maesh.containo.us/stanza-held";
/// What to do where the Lease may be neither read nor changed.
const ALLOW: &str = "Allow get and patch on it, as the chart's Role of the controller does";

/// Changes that did harm and are not made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HarmfulChange {
    /// Which; `None` until they are seen for the first time.
    of: Option<u64>,
    /// What was said of it.
    pub(super) why: String,
}

impl HarmfulChange {
    /// What would be written next is what did harm.
    pub(super) fn next(why: String) -> Self {
        Self { of: None, why }
    }

    /// Whether `changes` are those.
    pub(super) fn are(&mut self, changes: &[Change]) -> bool {
        let hash = hash(changes);
        *self.of.get_or_insert(hash) == hash
    }

    fn text(&self) -> Option<String> {
        Some(format!("{:016x} {}", self.of?, self.why))
    }

    fn parse(text: &str) -> Option<Self> {
        let (hash, why) = text.split_once(' ')?;
        Some(Self { of: Some(u64::from_str_radix(hash, 16).ok()?), why: why.to_owned() })
    }
}

/// Forgets what is `held` if it is written `there`, where another leader may have changed it by now.
fn forget(there: Option<Option<String>>, held: &mut Option<HarmfulChange>) {
    if let Some(Some(there)) = there {
        held.take_if(|held| held.text().is_some_and(|text| text == there));
    }
}

fn hash(changes: &[Change]) -> u64 {
    let mut hash = Xxh3::new();
    for Change { file, before, after } in changes {
        let texts = [before, after].map(|text| text.as_deref().unwrap_or("\0"));
        for part in [&file.map.namespace, &file.map.name, &file.key].map(String::as_str).iter().chain(&texts) {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
    }
    hash.digest()
}

/// Where it is remembered.
#[derive(Clone, Debug)]
pub struct Memory {
    leases: Api<Lease>,
    what: String,
    lease: String,
    /// What is written there; `None`: not known.
    there: Option<Option<String>>,
}

impl Memory {
    /// At the Lease `namespace`/`lease`.
    pub fn new(client: Client, namespace: &str, lease: &str) -> Self {
        let what = format!("what is remembered of the stanza at Lease {namespace}/{lease}");
        Self { leases: Api::namespaced(client, namespace), what, lease: lease.to_owned(), there: None }
    }

    /// Another leads, or may have: what is `held` and was written there may have changed since.
    pub(super) fn lapse(&mut self, held: &mut Option<HarmfulChange>) {
        forget(self.there.take(), held);
    }

    /// Learns what leaders before have `held`.
    ///
    /// # Errors
    /// If the API server does not say.
    pub(super) async fn recall(&mut self, held: &mut Option<HarmfulChange>) -> Result<(), ClusterError> {
        if self.there.is_some() {
            return Ok(());
        }
        let found = answer(&self.what, ALLOW, self.leases.get_metadata_opt(&self.lease)).await?;
        let there = found.and_then(|lease| lease.metadata.annotations?.remove(HELD));
        if held.is_none() {
            *held = there.as_deref().and_then(HarmfulChange::parse);
        }
        self.there = Some(there);
        Ok(())
    }

    /// Writes down what is `held` by now, if that is new. Where that fails, the next look tries again.
    pub(super) async fn remember(&mut self, held: Option<&HarmfulChange>, right: &Right) {
        let text = held.and_then(HarmfulChange::text);
        if self.there.as_ref().is_none_or(|there| *there == text) {
            return;
        }
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { HELD: text } } }));
        let parameters = PatchParams::default();
        let written = answer(&self.what, ALLOW, self.leases.patch_metadata(&self.lease, &parameters, &patch));
        match right.exercise(written).await {
            Ok(Ok(_)) => self.there = Some(text),
            Ok(Err(error)) => tracing::debug!(%error, "a leader after this one could write a harmful stanza again"),
            Err(error) => tracing::debug!(%error, "a leader after this one could write a harmful stanza again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{CorefileRef, MapName},
        *,
    };

    #[test]
    fn what_another_leader_may_have_changed_is_forgotten_and_nothing_else() {
        let ours = HarmfulChange { of: Some(7), why: "it died".into() };
        for (case, there, kept) in [
            ("nothing is known of what is there", None, true),
            ("not written down so far", Some(None), true),
            ("what was there before", Some(Some("0000000000000006 it hung".into())), true),
            ("written down", Some(ours.text()), false),
        ] {
            let mut held = Some(ours.clone());
            forget(there, &mut held);
            assert_eq!(held.is_some(), kept, "{case}");
        }
    }

    #[test]
    fn what_did_harm_is_known_again_until_it_changes() {
        let change = |before: &str| {
            let map = MapName { namespace: "kube-system".into(), name: "coredns".into() };
            let file = CorefileRef { map, key: "Corefile".into() };
            vec![Change { file, before: Some(before.into()), after: Some(format!("stanza\n{before}")) }]
        };
        let mut held = HarmfulChange::next("it died".into());
        assert_eq!(held.text(), None, "nothing to write down yet");
        assert!(held.are(&change("a")), "what is seen first");
        assert!(held.are(&change("a")) && !held.are(&change("b")));
        let mut recalled = HarmfulChange::parse(&held.text().expect("a text")).expect("its own text");
        assert_eq!(recalled, held);
        assert!(recalled.are(&change("a")) && !recalled.are(&change("b")));
        assert_eq!(HarmfulChange::parse("of another version"), None);
    }
}
