//! What is to be written where, and how what is there stands to it.

use std::{collections::BTreeMap, net::IpAddr};

use maesh_config::Zone;

use super::{
    Facts, MapName, NotStubs, NotUnderstood, Place, Software, Stanza, StanzaState, add, add_stubs, beside,
    edit::has_tls_stanza, facts, has_stubs, remove, remove_stubs, state,
};

/// The key in which kube-dns and NodeLocal DNSCache look for stub domains.
const STUBS: &str = "stubDomains";
/// What a zone is looked up in, where nothing says so.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// The texts of the ConfigMaps that matter; `None` for one that is not there.
pub type Maps = BTreeMap<MapName, Option<BTreeMap<String, String>>>;

/// A key of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CorefileRef {
    /// The ConfigMap.
    pub map: MapName,
    /// The key.
    pub key: String,
}

/// A text to be written; `None`: the key is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub file: CorefileRef,
    /// What is there.
    pub before: Option<String>,
    /// What is to be there.
    pub after: Option<String>,
}

/// How one file stands to the stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Where.
    pub file: CorefileRef,
    /// How, or why it cannot be told.
    pub state: Result<StanzaState, StanzaRefusal>,
}

/// Why a file was left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StanzaRefusal {
    /// A Corefile.
    #[error("{}, key {}, {why}. It was left as it is", file.map, file.key)]
    Corefile {
        /// Where.
        file: CorefileRef,
        /// Why.
        why: NotUnderstood,
    },
    /// Stub domains.
    #[error("{}, key {}, {why}. It was left as it is", file.map, file.key)]
    Stubs {
        /// Where.
        file: CorefileRef,
        /// Why.
        why: NotStubs,
    },
    /// The ConfigMap of the cluster's DNS is not there.
    #[error("{}, key {}, is not there, though the cluster's DNS reads it. Look at the cluster's DNS first", .0.map, .0.key)]
    NotThere(CorefileRef),
}

/// Everything there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How the files in which the stanza or stub domains stand do.
    pub standings: Vec<FileState>,
    /// The stanza as it should be; `None` where only stub domains carry the zones.
    pub stanza: Option<Stanza>,
    /// CoreDNS takes up changes by itself.
    pub reloads: bool,
    /// The zone of the cluster's own names.
    pub cluster_domain: String,
}

/// The files of a place, as they are to be treated.
struct CorefilePlan {
    /// The one with the stanza.
    host: Option<CorefileRef>,
    /// Others that CoreDNS reads.
    beside: Vec<CorefileRef>,
    facts: Option<Facts>,
}

/// The ConfigMaps to read for `place`; once the Corefile is among `maps`, those that it imports too.
pub(super) fn maps(place: &Place, maps: &Maps) -> Vec<MapName> {
    let mut wanted: Vec<MapName> = place.node_local.iter().cloned().collect();
    match &place.software {
        Software::KubeDns { map } => wanted.push(map.clone()),
        Software::CoreDns { map, key, .. } => {
            let corefile = maps.get(map).and_then(|data| data.as_ref()?.get(key));
            let imports = corefile.and_then(|text| facts(text).ok()).map(|facts| facts.imports).unwrap_or_default();
            wanted.push(map.clone());
            wanted.extend(imports.iter().filter_map(|pattern| Some(place.software.imported(pattern)?.0)));
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Where stub domains are to stand.
fn stub_files(place: &Place) -> Vec<CorefileRef> {
    let kube_dns = match &place.software {
        Software::KubeDns { map } => Some(map),
        Software::CoreDns { .. } => None,
    };
    let mut maps: Vec<_> = place.node_local.iter().chain(kube_dns).collect();
    maps.dedup();
    maps.into_iter().map(|map| CorefileRef { map: map.clone(), key: STUBS.into() }).collect()
}

fn files(place: &Place, maps: &Maps) -> Result<CorefilePlan, StanzaRefusal> {
    let Software::CoreDns { map, key, .. } = &place.software else {
        return Ok(CorefilePlan { host: None, beside: Vec::new(), facts: None });
    };
    let main = CorefileRef { map: map.clone(), key: key.clone() };
    let corefile = text(maps, &main).ok_or_else(|| StanzaRefusal::NotThere(main.clone()))?;
    let facts = facts(corefile).map_err(|why| StanzaRefusal::Corefile { file: main.clone(), why })?;
    let imported: Vec<(MapName, String)> =
        facts.imports.iter().filter_map(|pattern| place.software.imported(pattern)).collect();
    let mut beside = Vec::new();
    for (map, suffix) in &imported {
        let keys = maps.get(map).and_then(|data| data.as_ref()).into_iter().flat_map(BTreeMap::keys);
        let keys = keys.filter(|key| key.ends_with(suffix));
        beside.extend(keys.map(|key| CorefileRef { map: map.clone(), key: key.clone() }));
    }
    let host = match imported.first() {
        Some((map, suffix)) => {
            beside.push(main);
            CorefileRef { map: map.clone(), key: format!("maesh{suffix}") }
        }
        None => main,
    };
    beside.retain(|file| *file != host);
    Ok(CorefilePlan { host: Some(host), beside, facts: Some(facts) })
}

fn text<'a>(maps: &'a Maps, file: &CorefileRef) -> Option<&'a str> {
    maps.get(&file.map)?.as_ref()?.get(&file.key).map(String::as_str)
}

/// How everything stands to the mesh's `zones` leading to `forward`.
///
/// # Errors
/// If the Corefile is not there, or not understood.
pub(super) fn report(place: &Place, maps: &Maps, zones: &[Zone], forward: IpAddr) -> Result<Report, StanzaRefusal> {
    let files = files(place, maps)?;
    let mut standings = Vec::new();
    let stanza = stanza(&files, zones, forward)?;
    if let (Some(host), Some(stanza)) = (&files.host, &stanza) {
        let refused = |file: &CorefileRef, why| StanzaRefusal::Corefile { file: file.clone(), why };
        let mut is = state(text(maps, host).unwrap_or_default(), stanza).map_err(|why| refused(host, why));
        let tls = in_another(&files, maps, stanza).filter(|_| is == Ok(StanzaState::Absent));
        for file in files.beside.iter().filter(|file| Some(*file) != tls) {
            let there = text(maps, file).unwrap_or_default();
            match beside(there, stanza) {
                Ok(meant) if meant == there => {}
                Ok(_) if is == Ok(StanzaState::Absent) => {}
                Ok(_) => is = is.map(|_| StanzaState::Broken),
                Err(why) => standings.push(FileState { file: file.clone(), state: Err(refused(file, why)) }),
            }
        }
        let (host, is) = match tls {
            Some(tls) => (tls, is.map(|_| StanzaState::Present)),
            None => (host, is),
        };
        standings.insert(0, FileState { file: host.clone(), state: is });
    }
    for file in &stub_files(place) {
        let there = text(maps, file);
        let refused = |why| StanzaRefusal::Stubs { file: file.clone(), why };
        let has = has_stubs(there, zones, forward).map_err(refused);
        let state = has.and_then(|has| match has {
            true => Ok(StanzaState::Present),
            false => {
                add_stubs(there, zones, forward).map_err(refused)?;
                let removed = remove_stubs(there, zones, Some(forward)).map_err(refused)?;
                Ok(if removed.as_deref() == there { StanzaState::Absent } else { StanzaState::Outdated })
            }
        });
        standings.push(FileState { file: file.clone(), state });
    }
    let reloads = files.facts.as_ref().is_none_or(|facts| facts.reloads);
    let cluster_domain = files.facts.and_then(|facts| facts.cluster_domain).unwrap_or_else(|| CLUSTER_DOMAIN.into());
    Ok(Report { standings, stanza, reloads, cluster_domain })
}

/// The file beside the one for our stanza in which a person's stanza over TLS leads where ours would. With it, ours is not
/// needed.
fn in_another<'a>(files: &'a CorefilePlan, maps: &Maps, stanza: &Stanza) -> Option<&'a CorefileRef> {
    let has = |file: &&CorefileRef| has_tls_stanza(text(maps, file).unwrap_or_default(), stanza) == Ok(true);
    files.beside.iter().find(has)
}

fn stanza(files: &CorefilePlan, zones: &[Zone], forward: IpAddr) -> Result<Option<Stanza>, StanzaRefusal> {
    let (Some(host), Some(facts)) = (&files.host, &files.facts) else { return Ok(None) };
    let no_port = || StanzaRefusal::Corefile { file: host.clone(), why: NotUnderstood::NoPort };
    let port = facts.port.ok_or_else(no_port)?;
    Ok(Some(Stanza { zones: zones.to_vec(), port, forward }))
}

/// What to write so that `zones` lead to `forward`. Nothing, if all is as it should be.
///
/// # Errors
/// If one of the files is not understood: then none is to be written.
pub(super) fn additions(
    place: &Place,
    maps: &Maps,
    zones: &[Zone],
    forward: IpAddr,
) -> Result<Vec<Change>, StanzaRefusal> {
    let files = files(place, maps)?;
    let mut changes = Vec::new();
    let stanza = stanza(&files, zones, forward)?;
    if let (Some(host), Some(stanza)) = (&files.host, stanza)
        && !(in_another(&files, maps, &stanza).is_some()
            && state(text(maps, host).unwrap_or_default(), &stanza) == Ok(StanzaState::Absent))
    {
        // First what would be in the way.
        for (file, edit) in files.beside.iter().map(|file| (file, false)).chain([(host, true)]) {
            let there = text(maps, file);
            let texted = there.unwrap_or_default();
            let after = if edit { add(texted, &stanza) } else { beside(texted, &stanza) };
            let after = after.map_err(|why| StanzaRefusal::Corefile { file: file.clone(), why })?;
            changes.push(change(file, there, Some(after)));
        }
    }
    for file in &stub_files(place) {
        let there = text(maps, file);
        let after = add_stubs(there, zones, forward).map_err(|why| StanzaRefusal::Stubs { file: file.clone(), why })?;
        changes.push(change(file, there, Some(after)));
    }
    changes.retain(|change| change.before != change.after);
    Ok(changes)
}

/// What to write so that nothing of the mesh's is left, in every file that is understood; and the first one that is not,
/// which keeps no other. `forward`: our Service's address, where there still is one. The Corefile need not be whole.
pub(super) fn removals(
    place: &Place,
    maps: &Maps,
    zones: &[Zone],
    forward: Option<IpAddr>,
) -> (Vec<Change>, Option<StanzaRefusal>) {
    let files = files(place, maps);
    let texts = match (&files, &place.software) {
        (Ok(files), _) => files.host.iter().chain(&files.beside).cloned().collect(),
        (Err(StanzaRefusal::Corefile { .. }), Software::CoreDns { map, key, .. }) => {
            vec![CorefileRef { map: map.clone(), key: key.clone() }]
        }
        _ => Vec::new(),
    };
    let of_corefile = texts.into_iter().filter_map(|file| {
        let there = text(maps, &file)?;
        // A key of a map of imports that held nothing but ours was not there before.
        let imported =
            !matches!(&place.software, Software::CoreDns { map, key, .. } if *map == file.map && *key == file.key);
        let removed = remove(there, zones).map_err(|why| StanzaRefusal::Corefile { file: file.clone(), why });
        let after = removed.map(|after| Some(after).filter(|after| !imported || !after.is_empty() || there.is_empty()));
        Some((file, after))
    });
    let of_stubs = stub_files(place).into_iter().map(|file| {
        let removed = remove_stubs(text(maps, &file), zones, forward);
        let after = removed.map_err(|why| StanzaRefusal::Stubs { file: file.clone(), why });
        (file, after)
    });
    let (mut changes, mut refusal) = (Vec::new(), None);
    for (file, after) in of_corefile.chain(of_stubs) {
        match after {
            Ok(after) => changes.push(change(&file, text(maps, &file), after)),
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    changes.retain(|change| change.before != change.after);
    (changes, refusal)
}

fn change(file: &CorefileRef, before: Option<&str>, after: Option<String>) -> Change {
    Change { file: file.clone(), before: before.map(str::to_owned), after }
}

#[cfg(test)]
mod tests;
