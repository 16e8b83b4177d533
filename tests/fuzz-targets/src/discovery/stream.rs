//! Responses of a controller, made of resources that are damaged in places: beside a subscriber that gets only the good ones, one
//! that gets all of them has the same in the end.
//!
//! Four bytes for each resource: which one, its damage, where it goes, and what the role says of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use maesh_config::{Kind, Resource, wire};
use maesh_discovery::{
    update::{Demand, Rejected},
    xds::{Any, DeltaDiscoveryResponse, Rejection, Resource as Sent},
};
use prost::Message as _;

use super::state::{KindState, State, StoredChange, StoredResource};
use crate::objects::resources;

/// Of these a subscriber has everything, of the others what it asks for.
const WILDCARD: [Kind; 4] = [Kind::Mesh, Kind::Name, Kind::Listener, Kind::Proxy];
const ON_DEMAND: [Kind; 3] = [Kind::Service, Kind::Endpoints, Kind::Workload];

/// Bytes of all reasons in one answer, at most.
const REASONS: usize = 64 << 10;

pub(crate) fn run(steps: &[u8]) {
    let mut run = Run::new();
    let mut response = Vec::new();
    for &[which, damage, place, verdict] in steps.as_chunks().0 {
        let template = &resources()[usize::from(which) % resources().len()];
        if verdict & 0x80 != 0 {
            run.demand(template, verdict & 0x40 != 0);
        }
        response.push(Given { resource: run.sent(template, damage, place), is_refused: verdict & 1 != 0 });
        if verdict & 2 != 0 || response.len() == 16 {
            let removed = (verdict & 4 != 0).then(|| template.key().name.to_string());
            run.receive(template.kind(), std::mem::take(&mut response), removed);
        }
    }
    run.end();
}

/// A resource in a response.
#[derive(Clone)]
struct Given {
    resource: Sent,
    /// The role does not accept it.
    is_refused: bool,
}

/// What is kept of each resource, by kind and name.
type Kept = BTreeMap<(Kind, Arc<str>), StoredResource>;

struct Run {
    all: State,
    only_good: State,
    wanted: HashMap<Kind, Vec<Arc<str>>>,
    /// What changed is written here, as to a disk.
    disk: Kept,
    version: u32,
}

impl Run {
    fn new() -> Self {
        let state = || State::new(&WILDCARD, &ON_DEMAND, true);
        let (all, only_good) = (state(), state());
        Self { all, only_good, wanted: HashMap::new(), disk: Kept::new(), version: 0 }
    }

    /// Asks for a resource, or lets go of it.
    fn demand(&mut self, resource: &Resource, wanted: bool) {
        let key = resource.key();
        let of_kind = self.wanted.entry(key.kind).or_default();
        of_kind.retain(|name| *name != key.name);
        let demand = if wanted { Demand::Subscribe } else { Demand::Unsubscribe }(key.kind, key.name.clone());
        if wanted {
            of_kind.push(key.name);
        }
        self.all.demand([demand.clone()], true);
        self.only_good.demand([demand], true);
        self.write();
    }

    fn wants(&self, kind: Kind, name: &str) -> bool {
        WILDCARD.contains(&kind) || self.wanted.get(&kind).is_some_and(|names| names.iter().any(|it| **it == *name))
    }

    /// `resource` as a controller sends it, with some damage.
    fn sent(&mut self, resource: &Resource, damage: u8, place: u8) -> Sent {
        self.version += 1;
        let key = resource.key();
        let mut bytes = wire::encode(resource).to_vec();
        let mut name = key.name.to_string();
        let mut type_url = key.kind.type_url().to_owned();
        let at = bytes.len() * usize::from(place) / 256;
        match damage % 16 {
            0..=4 => {}
            5 => bytes.truncate(at),
            6 => name.push('x'),
            7 => type_url.push('x'),
            8 => return Sent { version: self.version.to_string(), resource: None, name },
            9 => bytes.extend_from_slice(&[0xff, 0xff]),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (damage >> 5);
                }
            }
        }
        let resource = Some(Any { type_url, value: Bytes::from(bytes) });
        Sent { version: self.version.to_string(), resource, name }
    }

    /// Whether a resource that came in a response of `kind` is put in force: readable, and wanted under this name.
    fn is_good(kind: Kind, it: &Sent) -> bool {
        let Some(any) = &it.resource else { return false };
        any.type_url == kind.type_url() && wire::decode_named(kind, &it.name, &any.value).is_ok()
    }

    fn receive(&mut self, kind: Kind, given: Vec<Given>, removed: Option<String>) {
        let wanted: Vec<Given> = given.iter().filter(|it| self.wants(kind, &it.resource.name)).cloned().collect();
        let (good, unread): (Vec<Given>, Vec<Given>) =
            wanted.into_iter().partition(|it| Self::is_good(kind, &it.resource));
        // What is refused is refused by its name.
        let refused: Vec<Arc<str>> =
            good.iter().filter(|it| it.is_refused).map(|it| it.resource.name.as_str().into()).collect();
        let accepted: Vec<Sent> = good
            .iter()
            .map(|it| it.resource.clone())
            .filter(|it| !refused.iter().any(|name| **name == *it.name))
            .collect();
        let all = given.into_iter().map(|it| it.resource).collect();
        let removed: Vec<String> = removed.into_iter().collect();
        let response = |resources| DeltaDiscoveryResponse {
            system_version_info: "complete:7".to_owned(),
            resources,
            type_url: kind.type_url().to_owned(),
            nonce: "n".to_owned(),
            removed_resources: removed.clone(),
            control_plane: None,
        };
        let received = self.all.receive(response(all)).expect("a kind that is subscribed");
        let upserts: Vec<Arc<str>> = received.upserts.iter().map(|resource| resource.key().name).collect();
        let want: Vec<Arc<str>> = good.iter().map(|it| it.resource.name.as_str().into()).collect();
        assert_eq!(upserts, want, "every good one, and no other");
        let no = |name: &Arc<str>| Rejected { name: name.clone(), message: "no ".repeat(9_000) };
        let (answer, count) = self.all.commit(received, refused.iter().map(no).collect());
        let mut named: Vec<Arc<str>> = unread.iter().map(|it| it.resource.name.as_str().into()).collect();
        named.extend(refused);
        assert_eq!(count, named.len());
        let details = answer.error_detail.map(|status| status.details).unwrap_or_default();
        let details: Vec<Rejection> =
            details.iter().map(|it| Rejection::decode(&*it.value).expect("a rejection")).collect();
        assert!(details.iter().map(|it| it.message.len()).sum::<usize>() <= REASONS);
        assert_eq!(
            details.iter().map(|it| &*it.name).collect::<Vec<_>>(),
            named.iter().map(|it| &**it).collect::<Vec<_>>()
        );
        let received = self.only_good.receive(response(accepted)).expect("a kind that is subscribed");
        let (answer, count) = self.only_good.commit(received, Vec::new());
        assert_eq!((answer.error_detail, count), (None, 0), "there was nothing bad in it");
        self.write();
    }

    /// Writes what changed; what is written then is what is held.
    fn write(&mut self) {
        for changes in self.all.take_changes() {
            for (name, change) in changes.resources {
                match change {
                    StoredChange::Here(resource) => drop(self.disk.insert((changes.kind, name), resource)),
                    StoredChange::Absent | StoredChange::Gone => drop(self.disk.remove(&(changes.kind, name))),
                }
            }
        }
        assert_eq!(self.disk, kept(&self.all));
        assert_eq!(kept(&self.only_good), self.disk, "the bad ones changed nothing");
    }

    fn end(mut self) {
        // A stream that begins says what is here, and by which version.
        let request = |state: &mut State| {
            let requests = state.open();
            let versions = requests.iter().flat_map(|request| {
                let kind = Kind::of_type_url(&request.type_url).expect("a kind");
                request
                    .initial_resource_versions
                    .iter()
                    .map(move |(name, version)| ((kind, name.as_str().into()), version.clone()))
            });
            versions.collect::<BTreeMap<(Kind, Arc<str>), String>>()
        };
        let versions = request(&mut self.all);
        let want: BTreeMap<_, _> = self.disk.iter().map(|(key, it)| (key.clone(), it.version.to_string())).collect();
        let is_open = |(kind, _): &&(Kind, Arc<str>)| WILDCARD.contains(kind) || self.wanted.contains_key(kind);
        assert!(want.keys().filter(is_open).all(|key| versions.get(key) == want.get(key)), "{versions:?}, {want:?}");
        assert_eq!(request(&mut self.only_good), versions);
    }
}

fn kept(state: &State) -> Kept {
    let of_kind = |held: &KindState| {
        let kind = held.kind;
        held.resources.iter().map(move |(name, it)| ((kind, name.clone()), it.clone())).collect::<Vec<_>>()
    };
    state.kinds.iter().flat_map(of_kind).collect()
}
