use std::time::SystemTime;

use super::*;
use crate::{
    update::Demand,
    xds::{Any, DeltaDiscoveryResponse, Resource as Sent},
};
use maesh_config::{model::Endpoints, wire::Version};

fn empty() -> State {
    State::new(&[Kind::Name], &[Kind::Endpoints], true)
}

fn endpoints(service: &str) -> (String, Bytes) {
    let endpoints = Endpoints { service: service.parse().unwrap(), ports: Vec::new() };
    (service.to_owned(), wire::encode(&Resource::Endpoints(endpoints)))
}

/// A state that got shop/web, and heard that shop/none is nothing.
fn filled() -> State {
    let mut state = empty();
    let names = ["shop/web", "shop/none"].map(|name| Demand::Subscribe(Kind::Endpoints, name.into()));
    state.demand(names, false);
    let type_url = Kind::Endpoints.type_url();
    let (name, bytes) = endpoints("shop/web");
    let version = Version::of(&bytes).to_string();
    let any = Any { type_url: type_url.to_owned(), value: bytes };
    let response = DeltaDiscoveryResponse {
        system_version_info: "complete:3".to_owned(),
        type_url: type_url.to_owned(),
        resources: vec![Sent { version, resource: Some(any), name }],
        removed_resources: vec!["shop/none".to_owned()],
        ..Default::default()
    };
    let received = state.receive(response).unwrap();
    let (answer, rejected) = state.commit(received, Vec::new());
    assert_eq!((answer.error_detail, rejected), (None, 0));
    state
}

async fn save(disk: &mut Disk, state: &State, reached: u64) -> bool {
    let mut saving = disk.save(state, reached);
    disk.saved(&mut saving).await
}

async fn saved(folder: &Path, state: State) -> PathBuf {
    let path = folder.join("kept/state");
    assert!(save(&mut Disk::new(path.clone()), &state, 41).await);
    path
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
        ("of a newer format", changed(MAGIC.len() + 1), "newer"),
    ] {
        fs::write(&path, bytes).unwrap();
        let mut state = empty();
        assert_eq!(Disk::new(path.clone()).load(&mut state).await, 0, "{case}");
        assert_eq!(state.len(), 0, "{case}");
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains(why), "{case}: {error}");
    }
}

#[tokio::test]
async fn a_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), filled()).await;
    let before: SystemTime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::create_dir(beside(&path)).unwrap();
    let mut disk = Disk::new(path.clone());
    assert!(!save(&mut disk, &empty(), 42).await);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
    fs::remove_dir(beside(&path)).unwrap();
    assert!(save(&mut disk, &empty(), 42).await);
    assert_eq!(disk.load(&mut empty()).await, 42);
}
