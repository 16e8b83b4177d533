use k8s_openapi::api::authentication::v1::UserInfo;
use proptest::prelude::*;
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};

use super::*;
use crate::admission::keys::{Keys, Signature};

fn accounts() -> Accounts {
    Accounts { namespace: "maesh".into(), dns: "maesh-dns".into(), proxy: "maesh-proxy".into() }
}

fn encode(value: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

/// What the API server puts into a token that is projected into a proxy's pod, changed by `change`.
fn claims(change: Value) -> Value {
    let mut claims = json!({
        "aud": ["maesh"], "exp": 1000, "iat": 100, "nbf": 100, "iss": "https://kubernetes.default.svc",
        "sub": "system:serviceaccount:maesh:maesh-proxy",
        "kubernetes.io": {
            "namespace": "maesh", "node": {"name": "n1", "uid": "1"}, "pod": {"name": "maesh-proxy-x", "uid": "2"},
            "serviceaccount": {"name": "maesh-proxy", "uid": "3"},
        },
    });
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(key)
        } else {
            claims.as_object_mut().unwrap().insert(key.clone(), value.clone())
        };
    }
    claims
}

fn unsigned(alg: &str, claims: &Value) -> String {
    let header = json!({"alg": alg, "kid": "k"});
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

#[test]
fn whose_a_token_is_by_its_own_words() {
    let pod = |pod: Value| json!({"kubernetes.io": {"pod": pod}});
    for (case, change, want) in [
        ("a proxy's", json!({}), Ok((Role::Proxy, Some("n1")))),
        ("dns's", json!({"sub": "system:serviceaccount:maesh:maesh-dns"}), Ok((Role::Dns, Some("n1")))),
        ("one audience, as a text", json!({"aud": "maesh"}), Ok((Role::Proxy, Some("n1")))),
        ("ours among several", json!({"aud": ["vault", "maesh"]}), Ok((Role::Proxy, Some("n1")))),
        ("the API server's", json!({"aud": ["https://kubernetes.default.svc"]}), Err("not meant for maesh")),
        ("no audience", json!({"aud": null}), Err("not meant for maesh")),
        ("nearly", json!({"aud": ["maesh2", "maes"]}), Err("not meant for maesh")),
        ("expired this second", json!({"exp": 500}), Err("expired")),
        ("expired long ago", json!({"exp": -5}), Err("expired")),
        ("one second left", json!({"exp": 501}), Ok((Role::Proxy, Some("n1")))),
        ("never expires", json!({"exp": i64::MAX}), Ok((Role::Proxy, Some("n1")))),
        ("from a clock a little ahead", json!({"nbf": 560}), Ok((Role::Proxy, Some("n1")))),
        ("not valid yet", json!({"nbf": 561}), Err("not valid yet")),
        ("the controller's", json!({"sub": "system:serviceaccount:maesh:maesh-controller"}), Err("no subscriber")),
        ("one of its name elsewhere", json!({"sub": "system:serviceaccount:shop:maesh-proxy"}), Err("no subscriber")),
        ("a namespace that goes on", json!({"sub": "system:serviceaccount:maesh:x:maesh-proxy"}), Err("no subscriber")),
        ("a person", json!({"sub": "maesh-proxy"}), Err("no subscriber")),
        ("of no pod", pod(json!(null)), Err("belongs to no pod")),
        ("of a pod without a name", pod(json!({"name": ""})), Err("belongs to no pod")),
        ("of a cluster that says no node", pod(json!({"name": "maesh-proxy-x"})), Ok((Role::Proxy, None))),
    ] {
        let text = format!("{}.{}", unsigned("RS256", &claims(change)), encode(b"none"));
        let token = Token::parse(&text).unwrap();
        let found = token.claims.principal(&accounts(), Timestamp::from_second(500).unwrap());
        match (want, found) {
            (Ok((role, node)), Ok(found)) => {
                let node = node.map(NodeName::from);
                assert_eq!(found, Principal { pod: Some("maesh-proxy-x".into()), role: Some(role), node }, "{case}");
            }
            (Err(want), Err(found)) => assert!(found.to_string().contains(want), "{case}: {found}"),
            (want, found) => panic!("{case}: {found:?}, not {want:?}"),
        }
    }
}

#[test]
fn what_is_no_token() {
    let good = unsigned("RS256", &claims(json!({})));
    for (case, text) in [
        ("nothing", String::new()),
        ("a secret", "a secret of some length".to_owned()),
        ("no signature", good.clone()),
        ("a signature that is not base64url", format!("{good}.a+/=")),
        ("claims that are not JSON", format!("{}.{}.{}", encode(b"{\"alg\":\"RS256\"}"), encode(b"x"), encode(b"s"))),
        ("claims without an end", format!("{}.{}", unsigned("RS256", &claims(json!({"exp": null}))), encode(b"s"))),
        (
            "no algorithm",
            format!("{}.{}.{}", encode(b"{}"), encode(claims(json!({})).to_string().as_bytes()), encode(b"s")),
        ),
        ("too long", format!("{good}.{}", "A".repeat(LONGEST))),
    ] {
        assert!(Token::parse(&text).is_none(), "{case}");
    }
}

#[test]
fn what_the_api_server_says_counts_only_when_it_says_all() {
    let status = |authenticated, audiences: &[&str], name: &str, pod: &[&str]| TokenReviewStatus {
        authenticated: Some(authenticated),
        audiences: Some(audiences.iter().map(ToString::to_string).collect()),
        user: Some(UserInfo {
            username: Some(name.to_owned()),
            extra: Some(
                [("authentication.kubernetes.io/pod-name".to_owned(), pod.iter().map(ToString::to_string).collect())]
                    .into(),
            ),
            ..UserInfo::default()
        }),
        ..TokenReviewStatus::default()
    };
    let proxy = "system:serviceaccount:maesh:maesh-proxy";
    for (case, status, admitted) in [
        ("all of it", status(true, &["maesh"], proxy, &["p"]), true),
        ("not authenticated", status(false, &["maesh"], proxy, &["p"]), false),
        ("an old server that knows no audiences", status(true, &[], proxy, &["p"]), false),
        ("for others", status(true, &["vault"], proxy, &["p"]), false),
        ("somebody else", status(true, &["maesh"], "system:serviceaccount:maesh:default", &["p"]), false),
        ("no pod", status(true, &["maesh"], proxy, &[]), false),
        ("nothing", TokenReviewStatus::default(), false),
    ] {
        assert_eq!(reviewed(&status, &accounts()).is_ok(), admitted, "{case}");
    }
}

/// A key as it is published, and what signs with it.
type Signer = (Value, Box<dyn Fn(&[u8]) -> Vec<u8>>);

fn ecdsa(curve: &str, algorithm: &'static EcdsaSigningAlgorithm) -> Signer {
    let random = SystemRandom::new();
    let written = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, written.as_ref(), &random).unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let key = json!({"kid": "k", "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y), "use": "sig"});
    (key, Box::new(move |signed| pair.sign(&SystemRandom::new(), signed).unwrap().as_ref().to_vec()))
}

fn rsa() -> Signer {
    // A key of this test alone: the library makes none.
    let pair = RsaKeyPair::from_pkcs8(include_bytes!("rsa-2048.pk8")).unwrap();
    let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
    let key = json!({"kid": "k", "kty": "RSA", "alg": "RS256", "n": encode(&n), "e": encode(&e)});
    let sign = move |signed: &[u8]| {
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature).unwrap();
        signature
    };
    (key, Box::new(sign))
}

#[test]
fn signatures_are_checked_with_the_published_keys() {
    for (alg, (key, sign)) in [
        ("RS256", rsa()),
        ("ES256", ecdsa("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING)),
        ("ES384", ecdsa("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING)),
    ] {
        let keys = Keys::parse(&json!({"keys": [{"kty": "oct", "kid": "x"}, key]}).to_string()).unwrap();
        let signed = unsigned(alg, &claims(json!({})));
        let signature = sign(signed.as_bytes());
        let check = |signed: &str, signature: &[u8]| {
            keys.verify(&Token::parse(&format!("{signed}.{}", encode(signature))).unwrap())
        };
        assert_eq!(check(&signed, &signature), Signature::Good, "{alg}");
        let mut flipped = signature.clone();
        flipped[7] ^= 1;
        assert_eq!(check(&signed, &flipped), Signature::Bad, "{alg}: a bit of the signature");
        assert_eq!(check(&signed, &[]), Signature::Bad, "{alg}: no signature");
        let other = unsigned(alg, &claims(json!({"sub": "system:serviceaccount:maesh:maesh-dns"})));
        assert_eq!(check(&other, &signature), Signature::Bad, "{alg}: other claims");
        for wrong in ["none", "HS256", if alg == "RS256" { "ES256" } else { "RS256" }] {
            let signed = unsigned(wrong, &claims(json!({})));
            assert_eq!(check(&signed, &sign(signed.as_bytes())), Signature::Bad, "{alg}, and the token says {wrong}");
        }
        let renamed = format!(
            "{}.{}",
            encode(json!({"alg": alg, "kid": "other"}).to_string().as_bytes()),
            signed.split_once('.').unwrap().1
        );
        assert_eq!(check(&renamed, &sign(renamed.as_bytes())), Signature::UnknownKey, "{alg}: another key's name");
    }
    for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"EC","kid":"k","crv":"P-256","x":"AA"}]}"#] {
        assert!(Keys::parse(bad).is_none(), "{bad}");
    }
}

proptest! {
    /// Nothing that a stranger writes breaks anything, or makes it one of ours without our words in it.
    #[test]
    fn anything_can_be_shown(header in ".{0,60}", claims in ".{0,200}", signature in prop::collection::vec(any::<u8>(), 0..80)) {
        let text = format!("{}.{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()), encode(&signature));
        for text in [text, header, claims] {
            if let Some(token) = Token::parse(&text) {
                prop_assert!(token.claims.principal(&accounts(), Timestamp::UNIX_EPOCH).is_err());
            }
        }
    }

    /// Claims with pieces of ours in any place: never a panic.
    #[test]
    fn claims_of_any_shape(exp in any::<i64>(), nbf in any::<Option<i64>>(), aud in "maesh|x", sub in "(system:serviceaccount:)?(maesh)?:?.{0,20}", now in -1_000_000_i64..10_000_000_000) {
        let text = format!("{}.{}", unsigned("ES256", &claims(json!({"exp": exp, "nbf": nbf, "aud": aud, "sub": sub}))), encode(b"s"));
        let token = Token::parse(&text).unwrap();
        let _ = token.claims.principal(&accounts(), Timestamp::from_second(now).unwrap());
    }
}
