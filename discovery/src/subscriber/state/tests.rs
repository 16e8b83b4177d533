use super::*;
use crate::xds::Resource as Sent;
use maesh_config::model::{Answer, Name};

fn name(service: &str) -> Resource {
    Resource::Name(Name {
        service: service.parse().unwrap(),
        answer: Answer::Plain,
        plain: Vec::new(),
        headless: false,
        ports: Vec::new(),
    })
}

fn sent(under: &str, type_url: &str, value: Bytes) -> Sent {
    let any = Any { type_url: type_url.to_owned(), value };
    Sent { version: "v".to_owned(), resource: Some(any), name: under.to_owned() }
}

fn response(kind: Kind, resources: Vec<Sent>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        nonce: "7".to_owned(),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

#[test]
fn each_resource_is_judged_alone() {
    let mut state = State::new(&[Kind::Name], &[], true);
    let type_url = Kind::Name.type_url();
    let good = wire::encode(&name("shop/web"));
    let received = state.receive(response(
        Kind::Name,
        vec![
            sent("shop/web", type_url, good.clone()),
            sent("shop/api", type_url, good.clone()),
            sent("shop/db", type_url, Bytes::from_static(b"\xff\xff")),
            sent("shop/x", Kind::Proxy.type_url(), good),
            Sent { name: "shop/y".to_owned(), ..Sent::default() },
        ],
        &[],
    ));
    let received = received.unwrap();
    assert_eq!(received.upserts.len(), 1);
    let (answer, rejected) = state.commit(received, Vec::new());
    assert_eq!((answer.response_nonce.as_str(), rejected), ("7", 4));
    let error = answer.error_detail.unwrap();
    assert_eq!(error.message, "shop/api: it describes \"shop/web\" instead (and 3 more)");
    let details: Vec<_> = error.details.iter().map(|it| Rejection::decode(&it.value[..]).unwrap()).collect();
    assert_eq!(details.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["shop/api", "shop/db", "shop/x", "shop/y"]);
    assert!(details[2].message.contains("of type"), "{:?}", details[2]);
    assert_eq!(state.len(), 1);
}

#[test]
fn the_last_good_one_stays_when_the_role_rejects() {
    let mut state = State::new(&[Kind::Name], &[], true);
    let bytes = wire::encode(&name("shop/web"));
    let give = |state: &mut State, version: &str, rejected: Vec<Rejected>| {
        let mut it = sent("shop/web", Kind::Name.type_url(), bytes.clone());
        it.version = version.to_owned();
        let received = state.receive(response(Kind::Name, vec![it], &[])).unwrap();
        state.commit(received, rejected).0.error_detail
    };
    assert_eq!(give(&mut state, "1", Vec::new()), None);
    let no = Rejected { name: "shop/web".into(), message: "no".to_owned() };
    assert_eq!(give(&mut state, "2", vec![no]).unwrap().message, "shop/web: no");
    assert_eq!(state.open()[0].initial_resource_versions["shop/web"], "1");
}

#[test]
fn interest_becomes_requests() {
    let mut state = State::new(&[Kind::Name], &[Kind::Endpoints, Kind::Service], false);
    let asked = |requests: &[DeltaDiscoveryRequest]| -> Vec<String> {
        let said = |it: &DeltaDiscoveryRequest| {
            let kind = Kind::of_type_url(&it.type_url).unwrap();
            let (plus, minus) = (it.resource_names_subscribe.join(" "), it.resource_names_unsubscribe.join(" "));
            format!("{kind:?} +[{plus}] -[{minus}]")
        };
        requests.iter().map(said).collect()
    };
    let sub = |name: &str| Demand::Subscribe(Kind::Endpoints, name.into());
    let un = |name: &str| Demand::Unsubscribe(Kind::Endpoints, name.into());
    assert_eq!(asked(&state.open()), ["Name +[*] -[]"], "naming nothing would ask for everything");
    for (case, demands, want) in [
        ("the first", vec![sub("a"), sub("b")], vec!["Endpoints +[a b] -[]"]),
        ("again", vec![sub("a")], vec![]),
        ("one more, one less", vec![un("a"), sub("c")], vec!["Endpoints +[c] -[a]"]),
        ("let go and taken again", vec![un("c"), sub("c")], vec!["Endpoints +[c] -[]"]),
        ("never had", vec![un("z")], vec![]),
        ("of a kind that comes whole", vec![Demand::Subscribe(Kind::Name, "x".into())], vec![]),
        ("of a kind that is not subscribed", vec![Demand::Subscribe(Kind::Proxy, "x".into())], vec![]),
        ("once more", vec![Demand::Again(Kind::Name, "x".into())], vec!["Name +[x] -[]"]),
        ("once more what was let go of", vec![Demand::Again(Kind::Endpoints, "z".into())], vec![]),
    ] {
        assert_eq!(asked(&state.demand(demands, true)), want, "{case}");
    }
    assert_eq!(state.demand([sub("d")], false), [], "told when the next stream opens");
    assert_eq!(asked(&state.open()), ["Endpoints +[b c d] -[]", "Name +[*] -[]"]);
}

#[test]
fn what_was_not_asked_for_is_left_alone() {
    let mut state = State::new(&[], &[Kind::Name], true);
    state.demand([Demand::Subscribe(Kind::Name, "shop/web".into())], false);
    assert!(state.receive(response(Kind::Proxy, Vec::new(), &["p"])).is_none(), "a kind that is not subscribed");
    let bytes = wire::encode(&name("shop/api"));
    let resources = vec![sent("shop/api", Kind::Name.type_url(), bytes)];
    let received = state.receive(response(Kind::Name, resources, &["shop/web", "shop/none"])).unwrap();
    assert!(received.upserts.is_empty());
    assert_eq!(received.removed, ["shop/web".into()]);
    state.commit(received, Vec::new());
    assert_eq!(state.held(Kind::Name).unwrap().absent.len(), 1);
    state.demand([Demand::Unsubscribe(Kind::Name, "shop/web".into())], false);
    assert!(state.held(Kind::Name).unwrap().absent.is_empty());
}

#[test]
fn every_rejected_name_is_said_however_long_the_reasons() {
    let long = |i: usize| Rejected { name: i.to_string().into(), message: "ü".repeat(REASONS / 3) };
    let all: Vec<_> = (0..5).map(long).collect();
    let details = complaint(&all).unwrap().details;
    let rejections: Vec<_> = details.iter().map(|it| Rejection::decode(&it.value[..]).unwrap()).collect();
    assert_eq!(rejections.len(), 5);
    assert!(rejections.iter().map(|it| it.message.len()).sum::<usize>() <= REASONS);
}
