use hickory_proto::{
    op::{MessageType, OpCode},
    rr::{Name, Record, rdata::SOA},
};
use serde_json::json;

use super::{super::outcome::Verdict, *};

fn answer(code: ResponseCode, soa: Option<(u32, u32)>) -> Message {
    let mut message = Message::new(1, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    if let Some((ttl, minimum)) = soa {
        let name = || Name::from_ascii("maesh.").unwrap();
        let data = SOA::new(name(), name(), 1, 1, 1, 1, minimum);
        message.authorities.push(Record::from_rdata(name(), ttl, RData::SOA(data)));
    }
    message
}

#[test]
fn negative_answers() {
    for (code, soa, want) in [
        (ResponseCode::NXDomain, Some((5, 5)), Verdict::Pass),
        (ResponseCode::NXDomain, Some((3600, 5)), Verdict::Pass),
        (ResponseCode::NXDomain, Some((3600, 3600)), Verdict::Warn),
        (ResponseCode::NXDomain, None, Verdict::Warn),
        (ResponseCode::NoError, None, Verdict::Fail),
    ] {
        assert_eq!(judge_negative(&answer(code, soa)).verdict, want, "{code} {soa:?}");
    }
}

#[test]
fn zones_that_are_taken() {
    assert_eq!(judge_zone(&answer(ResponseCode::NXDomain, None), "maesh").verdict, Verdict::Pass);
    let mut taken = answer(ResponseCode::NoError, Some((5, 5)));
    taken.answers = taken.authorities.clone();
    assert_eq!(judge_zone(&taken, "maesh").verdict, Verdict::Fail);
}

#[test]
fn what_coredns_says_of_its_corefile() {
    let metrics = "# HELP coredns_reload_failed_total x\ncoredns_reload_failed_total 2\n\
                   coredns_reload_version_info{hash=\"sha512\",value=\"abc\"} 1\n";
    let read = loaded(metrics);
    assert_eq!(read, Loaded { version: Some("abc".into()), failed: 2.0 });
    assert_eq!(loaded(""), Loaded::default());
    let one = |version: Option<&str>, failed| ("p".to_owned(), Loaded { version: version.map(str::to_owned), failed });
    for (case, seen, want) in [
        ("the same", vec![one(Some("a"), 0.0), one(Some("a"), 0.0)], Verdict::Pass),
        ("failed once", vec![one(Some("a"), 1.0), one(Some("a"), 0.0)], Verdict::Warn),
        ("on its way", vec![one(Some("a"), 0.0), one(Some("b"), 0.0)], Verdict::Warn),
        ("stuck", vec![one(Some("a"), 1.0), one(Some("b"), 0.0)], Verdict::Fail),
        ("just started", vec![one(None, 0.0)], Verdict::Pass),
        ("one just started", vec![one(None, 0.0), one(Some("a"), 0.0)], Verdict::Pass),
    ] {
        assert_eq!(judge_loaded(&seen).verdict, want, "{case}");
    }
}

#[test]
fn who_applies_the_corefile() {
    let map = |managed: Value| {
        vec![json!({ "metadata": { "name": "coredns", "managedFields": managed }, "data": { "Corefile": ".:53 {}" } })]
    };
    let entry =
        |operation: &str, fields: Value| json!([{ "manager": "helm", "operation": operation, "fieldsV1": fields }]);
    let corefile = || json!({ "f:data": { "f:Corefile": {} } });
    for (case, maps, want) in [
        ("kubeadm", map(entry("Update", corefile())), Verdict::Pass),
        ("Helm 4", map(entry("Apply", corefile())), Verdict::Warn),
        ("other fields", map(entry("Apply", json!({ "f:metadata": {} }))), Verdict::Pass),
        ("none", vec![], Verdict::Skip),
    ] {
        assert_eq!(judge_owner(&maps).verdict, want, "{case}");
    }
}
