//! The rules of the protocol, request by request.

use bytes::Bytes;

use super::*;
use crate::{Opaque, store::Store, xds::Node};
use maesh_config::wire::Version;

const TYPE: &str = "test/T";
const CHUNK: usize = 1 << 20;

/// A session of one subscriber, and what a client would say.
struct Talk {
    store: Store,
    session: Session,
}

impl Talk {
    fn new() -> Self {
        let store = Store::new();
        store.mark_complete();
        Self { store, session: Session::default() }
    }

    fn put(&self, name: &str, bytes: &'static str) {
        let bytes = Bytes::from_static(bytes.as_bytes());
        self.store.apply_opaque(&[Opaque { type_url: TYPE.into(), name: name.into(), bytes }], &[]);
    }

    fn remove(&self, name: &str) {
        self.store.apply_opaque(&[], &[(TYPE.into(), name.into())]);
    }

    fn say(&mut self, request: DeltaDiscoveryRequest) -> Result<RequestKind, Violation> {
        let node = Some(Node { id: "n".to_owned(), ..Node::default() });
        self.session.receive(DeltaDiscoveryRequest { node, type_url: TYPE.to_owned(), ..request }, &self.store)
    }

    fn subscribe(&mut self, names: &[&str]) {
        self.say(DeltaDiscoveryRequest { resource_names_subscribe: strings(names), ..Default::default() }).unwrap();
    }

    fn unsubscribe(&mut self, names: &[&str]) {
        self.say(DeltaDiscoveryRequest { resource_names_unsubscribe: strings(names), ..Default::default() }).unwrap();
    }

    fn resume(&mut self, names: &[&str], has: &[(&str, &str)]) {
        let version = |(name, bytes): &(&str, &str)| ((*name).to_owned(), Version::of(bytes.as_bytes()).to_string());
        self.say(DeltaDiscoveryRequest {
            resource_names_subscribe: strings(names),
            initial_resource_versions: has.iter().map(version).collect(),
            ..Default::default()
        })
        .unwrap();
    }

    fn answer(&mut self, nonce: &str, error: Option<&str>) -> RequestKind {
        let error = error.map(|message| Status { code: 3, message: message.to_owned(), details: Vec::new() });
        let answer =
            DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), error_detail: error, ..Default::default() };
        self.say(answer).unwrap()
    }

    fn next(&mut self) -> Option<DeltaDiscoveryResponse> {
        self.session.next(&self.store, CHUNK).unwrap().map(|push| push.response)
    }

    /// The next response, acknowledged, in short: `a=1 -b!`, where `!` marks completion; "" for none.
    fn receive(&mut self) -> String {
        let Some(response) = self.next() else { return String::new() };
        assert_eq!(self.answer(&response.nonce, None), RequestKind::Ack);
        said(&response)
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn said(response: &DeltaDiscoveryResponse) -> String {
    let bytes = |it: &Resource| String::from_utf8(it.resource.as_ref().unwrap().value.to_vec()).unwrap();
    let mut words: Vec<_> = response.resources.iter().map(|it| format!("{}={}", it.name, bytes(it))).collect();
    words.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
    let mark = response.system_version_info.parse::<RevisionMark>().unwrap();
    words.join(" ") + if mark.complete { "!" } else { "" }
}

#[test]
fn everything_is_asked_for_in_two_ways() {
    for (case, names) in [("naming nothing, the old way", &[][..]), ("by the star", &["*"])] {
        let mut talk = Talk::new();
        talk.put("a", "1");
        talk.subscribe(names);
        assert_eq!(talk.receive(), "a=1!", "{case}");
        assert_eq!(talk.receive(), "", "{case}");
        talk.put("b", "1");
        talk.remove("a");
        assert_eq!(talk.receive(), "b=1 -a", "{case}");
    }
}

#[test]
fn an_empty_set_is_said_to_be_complete() {
    let mut talk = Talk::new();
    talk.subscribe(&["*"]);
    assert_eq!(talk.receive(), "!");
    assert_eq!(talk.receive(), "");
}

#[test]
fn nothing_is_said_before_the_store_is_complete() {
    let mut talk = Talk { store: Store::new(), session: Session::default() };
    talk.put("a", "1");
    talk.resume(&["*"], &[("gone", "1")]);
    assert_eq!(talk.receive(), "", "gone may come yet");
    talk.put("gone", "1");
    talk.store.mark_complete();
    assert_eq!(talk.receive(), "a=1!");
}

#[test]
fn of_what_is_not_complete_only_what_is_there_is_said() {
    let mut talk = Talk { store: Store::new(), session: Session::default() };
    talk.put("a", "2");
    talk.resume(&["*"], &[("a", "1"), ("gone", "1"), ("late", "1"), ("same", "1")]);
    talk.store.mark_complete_but(&[TYPE]);
    assert_eq!(talk.receive(), "a=2", "no mark, and nothing is taken back");
    talk.put("same", "1");
    assert_eq!(talk.receive(), "", "it has it");
    talk.put("late", "1");
    talk.remove("late");
    talk.put("new", "1");
    assert_eq!(talk.receive(), "new=1 -late", "what went after it was there is gone");
    talk.store.mark_complete();
    assert_eq!(talk.receive(), "-gone!");
    assert_eq!(talk.receive(), "");
}

#[test]
fn single_names_are_answered_whether_or_not_they_exist() {
    let mut talk = Talk::new();
    talk.put("a", "1");
    talk.put("b", "1");
    talk.subscribe(&["a", "none"]);
    assert_eq!(talk.receive(), "a=1 -none!");
    talk.put("b", "2");
    assert_eq!(talk.receive(), "", "of no interest");
    talk.put("none", "1");
    talk.remove("a");
    assert_eq!(talk.receive(), "none=1 -a");
    talk.subscribe(&["b"]);
    assert_eq!(talk.receive(), "b=2!");
    talk.unsubscribe(&["b"]);
    talk.put("b", "3");
    assert_eq!(talk.receive(), "");
    talk.subscribe(&["none"]);
    assert_eq!(talk.receive(), "none=1!", "asked for again, it is sent again");
}

#[test]
fn the_star_comes_and_goes() {
    let mut talk = Talk::new();
    talk.put("a", "1");
    talk.put("b", "1");
    talk.subscribe(&["a"]);
    assert_eq!(talk.receive(), "a=1!");
    talk.subscribe(&["*"]);
    assert_eq!(talk.receive(), "a=1 b=1!");
    talk.unsubscribe(&["a"]);
    assert_eq!(talk.receive(), "a=1", "the star still covers it");
    talk.subscribe(&["a"]);
    assert_eq!(talk.receive(), "a=1!");
    talk.unsubscribe(&["*"]);
    talk.put("b", "2");
    assert_eq!(talk.receive(), "");
    talk.put("a", "2");
    assert_eq!(talk.receive(), "a=2");
}

#[test]
fn resuming_brings_differences_only() {
    type Row = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)], &'static str);
    let rows: [Row; 6] = [
        ("everything as it was", &["*"], &[("a", "1"), ("b", "1")], "!"),
        ("one differs, one is new, one is gone", &["*"], &[("a", "0"), ("z", "1")], "b=1 a=1 -z!"),
        ("single names as they were", &["a", "b"], &[("a", "1"), ("b", "1")], "!"),
        ("single names, one differs, one is gone", &["a", "z"], &[("a", "0"), ("z", "1")], "a=1 -z!"),
        ("a version of another server", &["a"], &[("a", "x")], "a=1!"),
        ("has what it does not ask for", &["a"], &[("a", "1"), ("b", "0"), ("z", "0")], "!"),
    ];
    for (case, subscribe, has, want) in rows {
        let mut talk = Talk::new();
        talk.put("a", "0");
        talk.put("b", "1");
        talk.put("a", "1");
        talk.put("older", "1");
        talk.remove("older");
        talk.resume(subscribe, has);
        let mut words: Vec<_> = talk.receive().trim_end_matches('!').split(' ').map(str::to_owned).collect();
        let mut wanted: Vec<_> = want.trim_end_matches('!').split(' ').map(str::to_owned).collect();
        words.sort();
        wanted.sort();
        assert_eq!(words, wanted, "{case}");
        assert_eq!(talk.receive(), "", "{case}");
    }
}

#[test]
fn one_response_is_unanswered_at_most_and_the_next_has_the_newest() {
    let mut talk = Talk::new();
    talk.subscribe(&["*"]);
    assert_eq!(talk.receive(), "!");
    talk.put("a", "1");
    let first = talk.next().unwrap();
    for bytes in ["2", "3", "4"] {
        talk.put("a", bytes);
        assert!(talk.next().is_none());
    }
    assert_eq!(talk.answer("not a nonce of ours", None), RequestKind::Stale);
    assert!(talk.next().is_none(), "a stale answer frees nothing");
    assert_eq!(talk.answer(&first.nonce, None), RequestKind::Ack);
    assert_eq!(talk.receive(), "a=4");
    assert_eq!(talk.answer(&first.nonce, None), RequestKind::Stale, "answered once");
}

#[test]
fn a_stale_answer_may_still_change_interest() {
    let mut talk = Talk::new();
    talk.put("a", "1");
    talk.put("b", "1");
    talk.subscribe(&["a"]);
    assert_eq!(talk.receive(), "a=1!");
    let heard = talk.say(DeltaDiscoveryRequest {
        resource_names_subscribe: strings(&["b"]),
        response_nonce: "old".to_owned(),
        ..Default::default()
    });
    assert_eq!(heard, Ok(RequestKind::Stale));
    assert_eq!(talk.receive(), "b=1!");
}

#[test]
fn what_was_rejected_is_not_sent_again_until_it_changes() {
    let mut talk = Talk::new();
    talk.put("a", "bad");
    talk.subscribe(&["*"]);
    let response = talk.next().unwrap();
    assert_eq!(talk.answer(&response.nonce, Some("a is bad")), RequestKind::Nack);
    assert_eq!(talk.receive(), "");
    talk.put("a", "good");
    assert_eq!(talk.receive(), "a=good");
}

#[test]
fn large_sets_come_in_chunks_and_the_last_one_says_so() {
    let mut talk = Talk::new();
    for name in ["a", "b", "c", "d", "e"] {
        talk.put(name, "0123456789");
    }
    talk.put("large", Box::leak("x".repeat(5000).into_boxed_str()));
    talk.subscribe(&["*"]);
    let mut chunks = Vec::new();
    while let Some(push) = talk.session.next(&talk.store, 300).unwrap() {
        assert!(push.bytes <= 300 || push.response.resources.len() == 1, "{} bytes", push.bytes);
        assert_eq!(talk.answer(&push.response.nonce, None), RequestKind::Ack);
        chunks.push((push.response.resources.len(), said(&push.response).ends_with('!')));
    }
    assert_eq!(chunks, [(2, false), (2, false), (1, false), (1, true)]);
}

#[test]
fn changes_during_the_initial_set_are_not_lost() {
    let mut talk = Talk::new();
    for name in ["a", "b", "c"] {
        talk.put(name, "1");
    }
    talk.resume(&["*"], &[("b", "0"), ("c", "0")]);
    let first = talk.session.next(&talk.store, 10).unwrap().unwrap().response;
    assert_eq!(said(&first), "a=1");
    talk.remove("a");
    talk.put("b", "2");
    talk.remove("c");
    talk.answer(&first.nonce, None);
    assert_eq!(talk.receive(), "b=2 -a -c!");
    assert_eq!(talk.receive(), "");
}

#[test]
fn what_a_stream_must_not_do() {
    let session = || (Session::default(), Store::new());
    let request = |type_url: &str, node: bool| DeltaDiscoveryRequest {
        node: node.then(Node::default),
        type_url: type_url.to_owned(),
        ..Default::default()
    };
    let (mut no_node, store) = session();
    assert_eq!(no_node.receive(request(TYPE, false), &store), Err(Violation::NoNode));
    let (mut no_type, store) = session();
    assert_eq!(no_type.receive(request("", true), &store), Err(Violation::NoType));
    let (mut greedy, store) = session();
    for i in 0..TYPES {
        assert!(greedy.receive(request(&i.to_string(), true), &store).is_ok());
    }
    assert_eq!(greedy.receive(request("one more", false), &store), Err(Violation::TooMuch));
}

#[test]
fn listeners_that_a_resuming_subscriber_has_count_as_acknowledged() {
    let store = Store::new();
    let put = |name: &str| {
        let type_url = Kind::Listener.type_url().into();
        store.apply_opaque(&[Opaque { type_url, name: name.into(), bytes: Bytes::from_static(b"l") }], &[]);
    };
    put("shared/80/tcp");
    put("shared/81/tcp");
    store.mark_complete();
    let mut session = Session::default();
    let request = DeltaDiscoveryRequest {
        node: Some(Node::default()),
        type_url: Kind::Listener.type_url().to_owned(),
        resource_names_subscribe: strings(&["*"]),
        initial_resource_versions: [("shared/80/tcp".to_owned(), Version::of(b"l").to_string())].into(),
        ..Default::default()
    };
    session.receive(request, &store).unwrap();
    let response = session.next(&store, CHUNK).unwrap().unwrap().response;
    assert_eq!(response.resources.len(), 1);
    let seen = session.take_changed().unwrap();
    assert_eq!(seen.listening.iter().map(|id| &*id.0).collect::<Vec<_>>(), ["shared/80/tcp"]);
}
