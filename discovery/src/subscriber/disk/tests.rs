use std::{process::Command, time::SystemTime};

use bytes::Bytes;
use maesh_config::{model::Endpoints, wire::Version};

use super::{
    record::{HEADER, MAGIC},
    *,
};
use crate::{
    update::Demand,
    xds::{Any, DeltaDiscoveryResponse, Resource as Sent},
};

fn empty() -> State {
    State::new(&[Kind::Name], &[Kind::Endpoints], true)
}

fn endpoints(service: &str) -> (String, Bytes) {
    let endpoints = Endpoints { service: service.parse().unwrap(), ports: Vec::new() };
    (service.to_owned(), wire::encode(&Resource::Endpoints(endpoints)))
}

/// Puts one response in force: `here` are resources with their versions, `removed` what there is not.
fn receive(state: &mut State, here: &[(&str, &str)], removed: &[&str], mark: &str) {
    let names = here.iter().map(|(name, _)| *name).chain(removed.iter().copied());
    let wanted: Vec<_> = names.map(|name| Demand::Subscribe(Kind::Endpoints, name.into())).collect();
    state.demand(wanted, false);
    let type_url = Kind::Endpoints.type_url();
    let sent = |(name, version): &(&str, &str)| {
        let (name, bytes) = endpoints(name);
        let version = if version.is_empty() { Version::of(&bytes).to_string() } else { (*version).to_owned() };
        Sent { version, resource: Some(Any { type_url: type_url.to_owned(), value: bytes }), name }
    };
    let response = DeltaDiscoveryResponse {
        system_version_info: mark.to_owned(),
        type_url: type_url.to_owned(),
        resources: here.iter().map(sent).collect(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let received = state.receive(response).unwrap();
    let (answer, rejected) = state.commit(received, Vec::new());
    assert_eq!((answer.error_detail, rejected), (None, 0));
}

/// A state that got shop/web, and heard that shop/none is nothing.
fn filled() -> State {
    let mut state = empty();
    receive(&mut state, &[("shop/web", "")], &["shop/none"], "complete:3");
    state
}

async fn save(disk: &mut Disk, state: &mut State, reached: u64) -> bool {
    let mut saving = disk.save(state, reached);
    disk.saved(&mut saving).await
}

async fn saved(folder: &Path, mut state: State) -> PathBuf {
    let path = folder.join("kept/state");
    assert!(save(&mut Disk::new(path.clone()), &mut state, 41).await);
    path
}

/// What a file holds, in words: `reached`, whether it is complete, resources with versions, absent names.
async fn held_in(path: &Path) -> String {
    let mut state = empty();
    let reached = Disk::new(path.to_owned()).load(&mut state).await;
    let held = state.held(Kind::Endpoints).unwrap();
    let mut names: Vec<_> = held.resources.iter().map(|(name, it)| format!("{name}={}", it.version)).collect();
    names.extend(held.absent.iter().map(|name| format!("no {name}")));
    names.sort();
    format!("{reached} {} {}", held.complete, names.join(" "))
}

#[tokio::test]
async fn what_is_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), filled()).await;
    let mut state = empty();
    assert_eq!(Disk::new(path.clone()).load(&mut state).await, 41);
    let held = state.held(Kind::Endpoints).unwrap();
    assert!(held.complete);
    assert_eq!(held.read_all().iter().map(|it| it.key().name).collect::<Vec<_>>(), ["shop/web".into()]);
    assert_eq!(held.absent.iter().cloned().collect::<Vec<_>>(), ["shop/none".into()]);
    let opening = state.open();
    assert_eq!(opening.len(), 2, "names by the star, endpoints by name");
    let asked = opening.iter().find(|it| it.type_url == Kind::Endpoints.type_url()).unwrap();
    assert_eq!(asked.resource_names_subscribe, ["shop/none", "shop/web"], "the interest is remembered");
    assert_eq!(asked.initial_resource_versions.keys().collect::<Vec<_>>(), ["shop/web"]);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["state"], "nothing is left beside it");
}

#[tokio::test]
async fn changes_are_appended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (mut disk, mut state) = (Disk::new(path.clone()), empty());
    let size = || fs::metadata(&path).unwrap().len();
    receive(&mut state, &[("shop/a", "1"), ("shop/b", "1")], &["shop/c"], "3");
    assert!(save(&mut disk, &mut state, 1).await);
    assert_eq!(held_in(&path).await, "1 false no shop/c shop/a=1 shop/b=1");
    for (case, here, removed, mark, want) in [
        ("a new version", &[("shop/a", "2")][..], &[][..], "4", "2 false no shop/c shop/a=2 shop/b=1"),
        ("one that was absent", &[("shop/c", "1")], &[], "5", "3 false shop/a=2 shop/b=1 shop/c=1"),
        ("one that is gone", &[], &["shop/b"], "6", "4 false no shop/b shop/a=2 shop/c=1"),
        ("all of it is here", &[("shop/a", "3")], &[], "complete:7", "5 true no shop/b shop/a=3 shop/c=1"),
    ] {
        let before = fs::read(&path).unwrap();
        receive(&mut state, here, removed, mark);
        let reached = want[..1].parse().unwrap();
        assert!(save(&mut disk, &mut state, reached).await, "{case}");
        assert_eq!(held_in(&path).await, want, "{case}");
        assert!(fs::read(&path).unwrap().starts_with(&before), "{case}: what was there is not written again");
    }
    state.demand([Demand::Unsubscribe(Kind::Endpoints, "shop/a".into())], false);
    assert!(save(&mut disk, &mut state, 5).await);
    assert_eq!(held_in(&path).await, "5 true no shop/b shop/c=1", "one that is not wanted any more");
    let before = size();
    assert!(save(&mut disk, &mut state, 5).await);
    assert_eq!(size(), before, "nothing changed");
}

/// Under churn the bytes written follow from the changes, and the file stays within twice what is held.
#[tokio::test]
async fn churn_writes_what_changes_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (mut disk, mut state) = (Disk::new(path.clone()), empty());
    let names: Vec<_> = (0..3_000).map(|i| format!("shop/a-service-with-a-long-name-{i:04}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), "0")).collect();
    receive(&mut state, &all, &[], "complete:1");
    assert!(save(&mut disk, &mut state, 1).await);
    let live = fs::metadata(&path).unwrap().len();
    let (mut written, mut changed, mut made_anew) = (0, 0, 0);
    let mut size = live;
    for round in 2..400_u64 {
        let version = round.to_string();
        let at = usize::try_from(round * 37).unwrap() % (names.len() - 20);
        let some: Vec<_> = names[at..at + 20].iter().map(|name| (name.as_str(), version.as_str())).collect();
        receive(&mut state, &some, &[], "9");
        assert!(save(&mut disk, &mut state, round).await);
        let now = fs::metadata(&path).unwrap().len();
        if now > size {
            written += now - size;
            changed = changed.max(now - size);
        } else {
            written += now;
            made_anew += 1;
        }
        size = now;
        assert!(size <= 2 * state.size_on_disk().max(live) + changed, "{size} bytes for {live}");
    }
    assert!(made_anew >= 1, "it was never made anew");
    let appended = 398 * changed;
    assert!(written <= 2 * appended + live, "{written} bytes for {appended} of changes");
    let mut loaded = empty();
    assert_eq!(Disk::new(path).load(&mut loaded).await, 399);
    assert_eq!(loaded.held(Kind::Endpoints).unwrap().resources, state.held(Kind::Endpoints).unwrap().resources);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_as_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), filled()).await;
    let good = fs::read(&path).unwrap();
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (case, bytes, why) in [
        ("torn at the end", good[..good.len() - 1].to_vec(), "torn"),
        ("torn in the header", good[..5].to_vec(), "not a state file"),
        ("nothing but the header", good[..HEADER].to_vec(), "torn"),
        ("empty", Vec::new(), "not a state file"),
        ("foreign", vec![b'x'; 100], "not a state file"),
        ("one bit changed", changed(HEADER + 9), "torn"),
        ("of another format", changed(MAGIC.len() + 1), "format"),
        ("a length beyond all bounds", [&good[..HEADER], &[0xff; 12], &good[HEADER + 12..]].concat(), "torn"),
    ] {
        fs::write(&path, bytes).unwrap();
        let mut state = empty();
        assert_eq!(Disk::new(path.clone()).load(&mut state).await, 0, "{case}");
        assert_eq!(state.len(), 0, "{case}");
        let error = record::load(&path).unwrap_err().to_string();
        assert!(error.contains(why), "{case}: {error}");
    }
}

/// Wherever a write of changes ends, the file holds what was there before it, or a part of the changes as well.
#[tokio::test]
async fn a_write_that_ends_anywhere_leaves_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (mut disk, mut state) = (Disk::new(path.clone()), empty());
    receive(&mut state, &[("shop/a", "1")], &[], "1");
    assert!(save(&mut disk, &mut state, 1).await);
    let base = fs::read(&path).unwrap().len();
    receive(&mut state, &[("shop/a", "2")], &["shop/b"], "complete:2");
    assert!(save(&mut disk, &mut state, 2).await);
    let all = fs::read(&path).unwrap();
    for end in base..all.len() {
        fs::write(&path, &all[..end]).unwrap();
        let held = held_in(&path).await;
        let allowed = [
            "1 false shop/a=1",
            "1 false shop/a=2",
            "1 false no shop/b shop/a=1",
            "1 false no shop/b shop/a=2",
            "1 true no shop/b shop/a=2",
        ];
        assert!(allowed.contains(&held.as_str()), "cut at {end} of {}: {held}", all.len());
        // A record that was written and then damaged is where the file ends, too.
        let mut damaged = all.clone();
        damaged[end] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let held = held_in(&path).await;
        assert!(allowed.contains(&held.as_str()), "damaged at {end}: {held}");
    }
    fs::write(&path, &all).unwrap();
    assert_eq!(held_in(&path).await, "2 true no shop/b shop/a=2");
}

/// The folder in which [`writes_until_it_is_killed`] writes.
const FOLDER: &str = "MAESH_TEST_STATE_FOLDER";

/// Not a test by itself: the process that [`a_process_that_is_killed_leaves_a_state`] kills.
#[tokio::test]
#[ignore = "long: writes until it is killed; another test starts it"]
async fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (mut disk, mut state) = (Disk::new(Path::new(&folder).join("state")), empty());
    let names: Vec<_> = (0..200).map(|i| format!("shop/s{i:03}")).collect();
    for round in 1..1_000_000_u64 {
        // All of one round have its version, so that a mixture shows.
        let version = round.to_string();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), version.as_str())).collect();
        receive(&mut state, &all, &[], "complete:1");
        assert!(save(&mut disk, &mut state, round).await);
    }
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_a_state() {
    let this = std::env::current_exe().unwrap();
    let test = format!("{}::writes_until_it_is_killed", module_path!().split_once("::").unwrap().1);
    for after in [0, 3, 17, 50, 120] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut writer = Command::new(&this)
            .args(["--exact", &test, "--ignored", "--quiet"])
            .env(FOLDER, folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !path.exists() {
            assert!(std::time::Instant::now() < deadline, "it writes nothing");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(after)).await;
        writer.kill().unwrap();
        writer.wait().unwrap();
        let mut state = empty();
        let reached = Disk::new(path).load(&mut state).await;
        let held = state.held(Kind::Endpoints).unwrap();
        assert!(reached >= 1 && held.complete, "{reached}");
        assert_eq!(held.resources.len(), 200);
        for encoded in held.resources.values() {
            let version: u64 = encoded.version.to_string().parse().unwrap();
            assert!((reached..=reached + 1).contains(&version), "{version} of {reached}");
        }
    }
}

#[tokio::test]
async fn a_failed_write_leaves_the_old_file_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), filled()).await;
    let before: SystemTime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::create_dir(beside(&path)).unwrap();
    let mut disk = Disk::new(path.clone());
    let mut state = filled();
    assert!(!save(&mut disk, &mut state, 42).await);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
    fs::remove_dir(beside(&path)).unwrap();
    receive(&mut state, &[("shop/api", "1")], &[], "4");
    assert!(save(&mut disk, &mut state, 43).await);
    let held = held_in(&path).await;
    assert!(held.starts_with("43 true no shop/none shop/api=1 shop/web="), "{held}");
}
