//! What a subscriber has: of each kind the versions and bytes that its role put in force. No input or output of its own.
//!
//! A resource that the role, or this version of the program, does not accept leaves the last good one where it was; the
//! answer names it, and a later stream gets it again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;

use crate::{
    RevisionMark, Verdict,
    update::{Demand, Rejected},
    xds::{Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Rejection, Status, WILDCARD},
};
use maesh_config::{
    Kind, Resource,
    wire::{self, Version},
};

/// Code of an answer that names rejected resources: INVALID_ARGUMENT.
const INVALID: i32 = 3;
/// Bytes that a resource takes on disk besides its name and its content: its version, and what frames it.
const RECORD_OVERHEAD: usize = 64;
/// Characters of all reasons in one answer.
const REASONS: usize = 64 << 10;

/// Everything held, by kind.
#[derive(Debug)]
pub(super) struct State {
    pub(super) kinds: Vec<KindState>,
    keep_bytes: bool,
}

/// The resources of one kind that this subscriber has, and what it subscribes to.
#[derive(Debug)]
pub(super) struct KindState {
    pub(super) kind: Kind,
    on_demand: bool,
    /// Names asked for, of a kind on demand.
    wanted: HashSet<Arc<str>>,
    /// Names asked for that the server knows to be nothing.
    pub(super) absent: HashSet<Arc<str>>,
    pub(super) resources: HashMap<Arc<str>, StoredResource>,
    pub(super) complete: bool,
    /// What is not on disk as it is here; nothing where no disk is.
    unsaved: Unsaved,
    /// This stream has a subscription to it.
    opened: bool,
}

/// What changed of one kind since it was written to disk.
#[derive(Debug, Default)]
struct Unsaved {
    tracked: bool,
    names: HashSet<Arc<str>>,
    complete: bool,
}

/// Changes of one kind, as they are written to disk.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) kind: Kind,
    /// Present form of each resource that changed.
    pub(super) resources: Vec<(Arc<str>, StoredChange)>,
    /// Everything that is subscribed of this kind is here, and was not before.
    pub(super) complete: bool,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredChange {
    /// This resource.
    Here(StoredResource),
    /// It was asked for, and there is none.
    Absent,
    /// It is held no longer.
    Gone,
}

/// A resource as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredResource {
    pub(super) version: Stamp,
    /// Empty when nothing is kept on disk. Shared with a write that is under way.
    pub(super) bytes: Arc<[u8]>,
}

/// A version: ours in short, or whatever text another server uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    Hash(Version),
    Text(Box<str>),
}

impl Stamp {
    pub(super) fn read(text: &str) -> Self {
        Version::parse(text).map_or_else(|| Self::Text(text.into()), Self::Hash)
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hash(version) => version.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A response, read; to be put in force, then [`State::commit`]ted.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) kind: Kind,
    pub(super) upserts: Vec<Arc<Resource>>,
    pub(super) removed: Vec<Arc<str>>,
    pub(super) complete: bool,
    encoded: Vec<(Arc<str>, String, Bytes)>,
    rejected: Vec<Rejected>,
    nonce: String,
}

impl Received {
    /// What became of each resource in it, once the role has `rejected` some.
    pub(super) fn verdicts(&self, rejected: &[Rejected]) -> Vec<(Arc<str>, Verdict)> {
        let accepted = self.encoded.iter().map(|(name, ..)| (name.clone(), Ok(())));
        let refused = self.rejected.iter().chain(rejected);
        accepted.chain(refused.map(|it| (it.name.clone(), Err(it.message.as_str().into())))).collect()
    }
}

impl State {
    pub(super) fn new(wildcard: &[Kind], on_demand: &[Kind], keep_bytes: bool) -> Self {
        let held = |kind: Kind| KindState {
            kind,
            on_demand: !wildcard.contains(&kind),
            wanted: HashSet::new(),
            absent: HashSet::new(),
            resources: HashMap::new(),
            complete: false,
            unsaved: Unsaved { tracked: keep_bytes, ..Unsaved::default() },
            opened: false,
        };
        let subscribed = |kind: &Kind| wildcard.contains(kind) || on_demand.contains(kind);
        Self { kinds: Kind::ALL.into_iter().filter(subscribed).map(held).collect(), keep_bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.iter().map(|held| held.resources.len()).sum()
    }

    /// What changed since the last time, which is forgotten with this.
    pub(super) fn take_changes(&mut self) -> Vec<Changes> {
        self.kinds.iter_mut().filter_map(KindState::take_changes).collect()
    }

    /// About how many bytes everything that is held takes on disk.
    pub(super) fn size_on_disk(&self) -> u64 {
        let of = |name: &str, bytes: usize| (name.len() + bytes + RECORD_OVERHEAD) as u64;
        let resources = self.kinds.iter().flat_map(|held| &held.resources).map(|(name, it)| of(name, it.bytes.len()));
        let absent = self.kinds.iter().flat_map(|held| &held.absent).map(|name| of(name, 0));
        resources.chain(absent).sum()
    }

    pub(super) fn held(&mut self, kind: Kind) -> Option<&mut KindState> {
        self.kinds.iter_mut().find(|held| held.kind == kind)
    }

    /// The requests that begin a stream: what is wanted, and what is there already.
    pub(super) fn open(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.kinds.iter_mut().filter_map(KindState::open).collect()
    }

    /// A type that this stream has a subscription to, for requests that say something else.
    pub(super) fn any_open(&self) -> Option<&'static str> {
        self.kinds.iter().find(|held| held.opened).map(|held| held.kind.type_url())
    }

    /// Takes over changes of interest; the requests that tell a server of them, if a stream is `open`.
    pub(super) fn demand(
        &mut self,
        demands: impl IntoIterator<Item = Demand>,
        open: bool,
    ) -> Vec<DeltaDiscoveryRequest> {
        let mut changed: HashMap<Kind, HashMap<Arc<str>, bool>> = HashMap::new();
        for demand in demands {
            let (kind, name, wanted) = match demand {
                Demand::Subscribe(kind, name) => (kind, name, true),
                Demand::Unsubscribe(kind, name) => (kind, name, false),
                Demand::Again(kind, name) => {
                    // What was rejected is not among what a new stream says is here, so it comes by itself there.
                    if self.held(kind).is_some_and(|held| held.opened && held.wants(&name)) {
                        changed.entry(kind).or_default().insert(name, true);
                    }
                    continue;
                }
            };
            if self.held(kind).is_some_and(|held| held.demand(&name, wanted)) {
                changed.entry(kind).or_default().insert(name, wanted);
            }
        }
        let tell = |held: &mut KindState| {
            let changed = changed.remove(&held.kind)?;
            if !held.opened {
                return held.open();
            }
            let (subscribe, unsubscribe): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(_, wanted)| *wanted);
            let names = |all: Vec<(Arc<str>, bool)>| {
                let mut names: Vec<_> = all.iter().map(|(name, _)| name.to_string()).collect();
                names.sort_unstable();
                names
            };
            Some(DeltaDiscoveryRequest {
                type_url: held.kind.type_url().to_owned(),
                resource_names_subscribe: names(subscribe),
                resource_names_unsubscribe: names(unsubscribe),
                ..Default::default()
            })
        };
        if open { self.kinds.iter_mut().filter_map(tell).collect() } else { Vec::new() }
    }

    /// Reads a response, each resource for itself. `None` when it is of a type that was never asked for.
    pub(super) fn receive(&self, response: DeltaDiscoveryResponse) -> Option<Received> {
        let kind = Kind::of_type_url(&response.type_url)?;
        let held = self.kinds.iter().find(|held| held.kind == kind)?;
        let complete = response.system_version_info.parse::<RevisionMark>().is_ok_and(|mark| mark.complete);
        let mut received = Received {
            kind,
            upserts: Vec::with_capacity(response.resources.len()),
            removed: Vec::with_capacity(response.removed_resources.len()),
            complete,
            encoded: Vec::with_capacity(response.resources.len()),
            rejected: Vec::new(),
            nonce: response.nonce,
        };
        for it in response.resources {
            if !held.wants(&it.name) {
                continue;
            }
            let name: Arc<str> = it.name.into();
            match read(kind, &name, it.resource) {
                Ok((resource, bytes)) => {
                    received.upserts.push(Arc::new(resource));
                    received.encoded.push((name, it.version, bytes));
                }
                Err(message) => received.rejected.push(Rejected { name, message }),
            }
        }
        let removed = response.removed_resources.into_iter().filter(|name| held.wants(name));
        received.removed.extend(removed.map(Arc::from));
        Some(received)
    }

    /// The role has put `received` in force, except what it `rejected`. Returns the answer, and how many resources are
    /// named in it.
    pub(super) fn commit(&mut self, received: Received, rejected: Vec<Rejected>) -> (DeltaDiscoveryRequest, usize) {
        let Received { kind, removed, complete, encoded, rejected: unread, nonce, .. } = received;
        let keep_bytes = self.keep_bytes;
        if let Some(held) = self.held(kind) {
            let refused: HashSet<&str> = rejected.iter().map(|it| &*it.name).collect();
            for (name, version, bytes) in encoded {
                if refused.contains(&*name) || !held.wants(&name) {
                    continue;
                }
                held.absent.remove(&name);
                held.unsaved.note(&name);
                // Copied, because the bytes that came are a part of a message that may be a thousand times as large.
                let bytes = if keep_bytes { bytes[..].into() } else { Arc::default() };
                held.resources.insert(name, StoredResource { version: Stamp::read(&version), bytes });
            }
            for name in removed {
                held.resources.remove(&name);
                held.unsaved.note(&name);
                if held.on_demand && held.wants(&name) {
                    held.absent.insert(name);
                }
            }
            held.unsaved.complete |= complete && !held.complete;
            held.complete |= complete;
        }
        let mut all = unread;
        all.extend(rejected);
        let answer = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            response_nonce: nonce,
            error_detail: complaint(&all),
            ..Default::default()
        };
        (answer, all.len())
    }
}

impl Unsaved {
    fn note(&mut self, name: &Arc<str>) {
        if self.tracked {
            self.names.insert(name.clone());
        }
    }
}

impl KindState {
    fn wants(&self, name: &str) -> bool {
        !self.on_demand || self.wanted.contains(name)
    }

    fn demand(&mut self, name: &Arc<str>, wanted: bool) -> bool {
        if !self.on_demand {
            return false;
        }
        if wanted {
            return self.wanted.insert(name.clone());
        }
        if self.resources.remove(name).is_some() | self.absent.remove(name) {
            self.unsaved.note(name);
        }
        self.wanted.remove(name)
    }

    /// Forgets a resource that the role does not accept.
    pub(super) fn forget(&mut self, name: &Arc<str>) {
        if self.resources.remove(name).is_some() {
            self.unsaved.note(name);
        }
    }

    fn take_changes(&mut self) -> Option<Changes> {
        let Unsaved { names, complete, .. } = &mut self.unsaved;
        let (names, complete) = (std::mem::take(names), std::mem::take(complete));
        let form = |name: Arc<str>| {
            let form = match self.resources.get(&name) {
                Some(encoded) => StoredChange::Here(encoded.clone()),
                None if self.absent.contains(&name) => StoredChange::Absent,
                None => StoredChange::Gone,
            };
            (name, form)
        };
        let changes = Changes { kind: self.kind, resources: names.into_iter().map(form).collect(), complete };
        (!changes.resources.is_empty() || complete).then_some(changes)
    }

    /// Restores what was kept.
    pub(super) fn restore(
        &mut self,
        resources: HashMap<Arc<str>, StoredResource>,
        absent: HashSet<Arc<str>>,
        complete: bool,
    ) {
        if self.on_demand {
            self.wanted.extend(resources.keys().chain(&absent).cloned());
            self.absent = absent;
        }
        self.resources = resources;
        self.complete = complete;
    }

    fn open(&mut self) -> Option<DeltaDiscoveryRequest> {
        let mut names: Vec<String> = self.wanted.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        if !self.on_demand {
            names.push(WILDCARD.to_owned());
        }
        // A first request that names nothing would ask for everything.
        self.opened = !names.is_empty();
        let version = |(name, encoded): (&Arc<str>, &StoredResource)| (name.to_string(), encoded.version.to_string());
        self.opened.then(|| DeltaDiscoveryRequest {
            type_url: self.kind.type_url().to_owned(),
            resource_names_subscribe: names,
            initial_resource_versions: self.resources.iter().map(version).collect(),
            ..Default::default()
        })
    }
}

fn read(kind: Kind, name: &str, any: Option<Any>) -> Result<(Resource, Bytes), String> {
    let any = any.ok_or("it has no content")?;
    if any.type_url != kind.type_url() {
        return Err(format!("its content is of type {:?}", any.type_url));
    }
    match wire::decode_named(kind, name, &any.value) {
        Ok(resource) => Ok((resource, any.value)),
        Err(error) => Err(error.to_string()),
    }
}

/// What an answer says of rejected resources; `None` when there are none.
fn complaint(rejected: &[Rejected]) -> Option<Status> {
    let first = rejected.first()?;
    let more = match rejected.len() {
        1 => String::new(),
        all => format!(" (and {} more)", all - 1),
    };
    let mut room = REASONS;
    // Every name is said, because the others count as in force; reasons are cut when there are too many.
    let detail = |it: &Rejected| {
        let message = clip(&it.message, room);
        room -= message.len();
        let rejection = Rejection { name: it.name.to_string(), message: message.to_owned() };
        Any { type_url: Rejection::TYPE_URL.to_owned(), value: rejection.encode_to_vec().into() }
    };
    Some(Status {
        code: INVALID,
        message: format!("{}: {}{more}", first.name, first.message),
        details: rejected.iter().map(detail).collect(),
    })
}

/// The longest beginning of `text` of at most `room` bytes.
fn clip(text: &str, room: usize) -> &str {
    let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
