//! Events: what is wrong with an object, said where its owner looks (`kubectl describe`).
//!
//! The leader writes one Event for each thing that stands, and renews it for as long as it does, as a series; that it is
//! mended is not an Event: the renewals end, and Kubernetes forgets it within the hour. An Event's name follows from
//! what it says, so whoever leads next finds it there and does not say it again. Who is limited, and how, is `ledger`'s.

mod ledger;

use std::{sync::Arc, time::Duration, time::Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use maesh_compiler::{
    diagnostic::{Diagnostic, ObjectRef},
    kinds::ObjectKind,
};
use serde_json::json;
use tokio::{sync::mpsc, time::interval};
use xxhash_rust::xxh3::Xxh3;

use self::ledger::Ledger;
use crate::{api::ApiError, leader::Leadership};

/// Who says it.
const CONTROLLER: &str = "maesh.containo.us/controller";
/// Longest text, in bytes; the API server refuses more than 1024.
const LONGEST: usize = 1000;
/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(500);

/// How an Event sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tone {
    /// Something was done.
    Normal,
    /// Somebody should look.
    Warning,
}

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Of what.
    pub object: ObjectRef,
    /// Its uid, if it is known; looked up otherwise, where the controller may.
    pub uid: Option<Arc<str>>,
    /// How.
    pub tone: Tone,
    /// Why, in one word.
    pub reason: Arc<str>,
    /// For people.
    pub text: Arc<str>,
}

impl From<&Diagnostic> for Note {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            object: diagnostic.object.clone(),
            uid: None,
            tone: Tone::Warning,
            reason: diagnostic.reason.to_string().into(),
            text: diagnostic.message.clone(),
        }
    }
}

enum Said {
    Stands(Note),
    Cleared(Note),
    Happened(Note),
}

/// Takes what is to be said; clones say it to the same. Never waits. Every replica says everything: one of them leads.
#[derive(Clone, Debug)]
pub struct Recorder(mpsc::UnboundedSender<Said>);

impl Recorder {
    /// What a diagnostic says holds until it is [`Recorder::cleared`].
    pub fn found(&self, diagnostic: &Diagnostic) {
        // Nobody listens while the process ends.
        let _ = self.0.send(Said::Stands(diagnostic.into()));
    }

    /// It holds no longer.
    pub fn cleared(&self, diagnostic: &Diagnostic) {
        let _ = self.0.send(Said::Cleared(diagnostic.into()));
    }

    /// Something happened; the same within ten minutes is one Event.
    pub fn happened(&self, note: Note) {
        let _ = self.0.send(Said::Happened(note));
    }
}

/// What [`keep`] takes from recorders.
#[derive(Debug)]
pub struct Notes(mpsc::UnboundedReceiver<Said>);

#[cfg(test)]
impl Notes {
    /// The next thing that happened, if any was said.
    pub(super) fn happened(&mut self) -> Option<Note> {
        match self.0.try_recv() {
            Ok(Said::Happened(note)) => Some(note),
            _ => None,
        }
    }
}

/// A recorder, and what it takes in.
pub fn recorder() -> (Recorder, Notes) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Recorder(sender), Notes(receiver))
}

/// Who writes Events.
#[derive(Clone, Debug)]
pub struct Options {
    /// The mesh's namespace, where the pods of proxies are.
    pub namespace: String,
    /// Name of this replica.
    pub replica: String,
}

/// Why an Event is not written.
enum Unwritten {
    /// Another try is worth it.
    Later(String),
    /// It never will be.
    Never(String),
}

/// Writes Events as the leader, until all recorders are dropped.
pub async fn keep(client: Client, options: Options, leadership: Leadership, mut notes: Notes) {
    let mut ledger = Ledger::new(Instant::now());
    let mut tick = interval(TICK);
    let writer = Writer { client, options, leadership };
    let mut warned = false;
    loop {
        let now = Instant::now();
        tokio::select! {
            said = notes.0.recv() => {
                match said {
                    None => return,
                    Some(Said::Stands(note)) => ledger.stands(note, now),
                    Some(Said::Cleared(note)) => ledger.cleared(&note),
                    Some(Said::Happened(note)) => ledger.happened(note, now),
                }
                continue;
            }
            _ = tick.tick() => {}
        }
        while writer.leadership.may_write()
            && let Some(note) = ledger.next(Instant::now())
        {
            match writer.write(&note).await {
                Ok(()) => ledger.done(&note, Instant::now()),
                Err(Unwritten::Never(error)) => {
                    ledger.done(&note, Instant::now());
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(object = %note.object, error, "an Event was refused; others may be as well");
                    }
                }
                Err(Unwritten::Later(error)) => {
                    ledger.failed(&note, Instant::now());
                    tracing::debug!(object = %note.object, error, "an Event could not be written; trying on");
                    break;
                }
            }
        }
    }
}

struct Writer {
    client: Client,
    options: Options,
    leadership: Leadership,
}

impl Writer {
    async fn write(&self, note: &Note) -> Result<(), Unwritten> {
        let Some(regarding) = self.regarding(note).await? else { return Ok(()) };
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events = Api::<Event>::namespaced(self.client.clone(), &namespace);
        let name = name(note, regarding.uid.as_deref().unwrap_or_default());
        let now = Timestamp::now();
        let event = self.event(&name, note, regarding, now);
        let created = self.leadership.write(events.create(&PostParams::default(), &event)).await;
        match created.map_err(|error| Unwritten::Later(error.to_string()))? {
            Err(error) if ApiError::Conflict.is(&error) => self.renew(&events, &name, now).await,
            created => created.map(drop).map_err(unwritten),
        }
    }

    /// The Event is there: it is renewed if that is due, and left alone if it is fresh, as after a change of leaders.
    async fn renew(&self, events: &Api<Event>, name: &str, now: Timestamp) -> Result<(), Unwritten> {
        // A patch of nothing writes nothing and answers the object, with no right to read Events.
        let nothing = Patch::Merge(json!({}));
        let there = events.patch(name, &PatchParams::default(), &nothing).await.map_err(|error| {
            match ApiError::of(&error) {
                // Forgotten meanwhile: it is made anew.
                ApiError::Missing => Unwritten::Later(error.to_string()),
                _ => unwritten(error),
            }
        })?;
        let observed = there.series.as_ref().map(|series| series.last_observed_time.0);
        let last = observed.or_else(|| there.event_time.map(|time| time.0)).unwrap_or(now);
        let age = Duration::try_from(now - last).unwrap_or_default();
        if age < ledger::RENEW / 2 {
            return Ok(());
        }
        let count = there.series.map_or(2, |series| series.count.saturating_add(1));
        let series = EventSeries { count, last_observed_time: MicroTime(now) };
        let patch = Patch::Merge(json!({ "series": series }));
        let renewed = self.leadership.write(events.patch(name, &PatchParams::default(), &patch)).await;
        renewed.map_err(|error| Unwritten::Later(error.to_string()))?.map(drop).map_err(unwritten)
    }

    fn event(&self, name: &str, note: &Note, regarding: ObjectReference, now: Timestamp) -> Event {
        let tone = match note.tone {
            Tone::Normal => "Normal",
            Tone::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(cut(&self.options.replica, 128).to_owned()),
            action: Some("Configure".to_owned()),
            reason: Some(note.reason.to_string()),
            note: Some(cut(&note.text, LONGEST).to_owned()),
            type_: Some(tone.to_owned()),
            regarding: Some(regarding),
            ..Event::default()
        }
    }

    /// The version in which the cluster serves an object, and its identity; `None` if there is none, or none any more.
    async fn find(
        &self,
        place: &Place,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<(String, Option<String>)>, Unwritten> {
        for at in 0..place.versions.len() {
            let resource = ApiResource {
                group: place.group.to_owned(),
                version: place.version(at).to_owned(),
                api_version: place.api_version(at),
                kind: kind.to_owned(),
                plural: place.plural.to_owned(),
            };
            let client = self.client.clone();
            let objects: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            };
            let named = ListParams::default().fields(&format!("metadata.name={name}"));
            match objects.list_metadata(&named).await {
                Ok(found) => {
                    let object = found.items.into_iter().next();
                    return Ok(object.map(|object| (resource.api_version, object.metadata.uid)));
                }
                // Not ours to read: then without it.
                Err(error) if ApiError::Forbidden.is(&error) => return Ok(Some((resource.api_version, None))),
                // Perhaps in another version.
                Err(error) if ApiError::Missing.is(&error) => {}
                Err(error) => return Err(unwritten(error)),
            }
        }
        Ok(None)
    }

    /// The object as Events name it; `None` if there is none, or none any more.
    async fn regarding(&self, note: &Note) -> Result<Option<ObjectReference>, Unwritten> {
        let ObjectRef { kind, namespace, name } = &note.object;
        // A proxy is called by its pod's name.
        let (kind, namespace) = match &**kind {
            "Proxy" => ("Pod", Some(self.options.namespace.as_str())),
            kind => (kind, namespace.as_deref()),
        };
        let Some(place) = Place::of(kind).filter(|_| &**name != "*") else { return Ok(None) };
        let (api_version, uid) = match &note.uid {
            Some(uid) => (place.api_version(0), Some(uid.to_string())),
            None => match self.find(&place, kind, namespace, name).await? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        Ok(Some(ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind.to_owned()),
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_string()),
            uid,
            ..ObjectReference::default()
        }))
    }
}

/// Where objects of a kind are in the API.
struct Place {
    group: &'static str,
    plural: &'static str,
    /// The versions that a cluster may serve, the best one first. At least one.
    versions: &'static [&'static str],
}

impl Place {
    /// The place of a kind that Events can be about.
    fn of(kind: &str) -> Option<Self> {
        if kind == "Deployment" {
            return Some(Self { group: "apps", plural: "deployments", versions: &["v1"] });
        }
        let known = ObjectKind::ALL.into_iter().find(|known| known.as_str() == kind)?.registration();
        Some(Self { group: known.group, plural: known.plural, versions: known.versions })
    }

    fn version(&self, at: usize) -> &'static str {
        self.versions.get(at).copied().unwrap_or("v1")
    }

    fn api_version(&self, at: usize) -> String {
        if self.group.is_empty() { self.version(at).to_owned() } else { format!("{}/{}", self.group, self.version(at)) }
    }
}

/// The Event's name: the object's, and a hash of what is said.
fn name(note: &Note, uid: &str) -> String {
    let mut hash = Xxh3::new();
    for part in [uid, &note.object.kind, &note.reason, &note.text] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    format!("{}.{:016x}", cut(&note.object.name, 230).trim_end_matches(['.', '-']), hash.digest())
}

/// Whether another try is worth it.
fn unwritten(error: kube::Error) -> Unwritten {
    match ApiError::of(&error) {
        ApiError::Later | ApiError::Failed | ApiError::Stranger => Unwritten::Later(error.to_string()),
        _ => Unwritten::Never(error.to_string()),
    }
}

/// The beginning of `text`, at most `longest` bytes, between characters.
fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}
