//! Certificates in files: good, bad, expired, not valid yet, and replaced.

use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// A chain and its key, PEM.
#[derive(Clone)]
struct Pair {
    chain: String,
    key: String,
}

/// A certificate that signs itself, valid in these years.
fn pair(from: i32, until: i32) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    Pair { chain: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn valid() -> Pair {
    pair(2020, 2100)
}

struct Folder {
    folder: TempDir,
    files: CertificateFiles,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles { chain: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
        Self { folder, files }
    }

    fn write(&self, chain: Option<&str>, key: Option<&str>) {
        for (path, text) in [(&self.files.chain, chain), (&self.files.key, key)] {
            let _ = std::fs::remove_file(path);
            if let Some(text) = text {
                std::fs::write(path, text).unwrap();
            }
        }
    }

    /// The error without the name of the folder.
    fn error(&self) -> String {
        let folder = format!("{}/", self.folder.path().display());
        let said = self.files.load().unwrap_err().to_string().replace(&folder, "");
        assert_eq!(self.files.load_for_dns().unwrap_err().to_string().replace(&folder, ""), said);
        said
    }
}

#[test]
fn a_bad_file_is_named_with_what_to_do() {
    let folder = Folder::new();
    let (first, second) = (valid(), valid());
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let cut_key = half(&first.key);
    let cut_chain = half(&first.chain);
    let two = format!("{}{}", first.chain, second.chain);
    let encrypted = first.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old_encrypted =
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: A,B\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let no_base64 = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let no_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let long = "a".repeat((1 << 20) + 1);
    for (case, chain, key, said) in [
        ("no chain", None, Some(first.key.as_str()), "tls.crt: No such file"),
        ("no key", Some(first.chain.as_str()), None, "tls.key: No such file"),
        ("an endless chain", Some(&long), Some(&first.key), "tls.crt: it is longer than 1 MiB"),
        ("an empty chain", Some(""), Some(&first.key), "tls.crt: it holds no certificate; write one as PEM"),
        ("a key for a chain", Some(&first.key), Some(&first.key), "tls.crt: it holds no certificate; write one as PEM"),
        (
            "half a chain",
            Some(&cut_chain),
            Some(&first.key),
            "tls.crt: the line -----END CERTIFICATE----- is missing; the file is cut off: write all of it",
        ),
        ("not Base64", Some(no_base64), Some(&first.key), "tls.crt: the text between BEGIN and END is not Base64"),
        ("not X.509", Some(no_x509), Some(&first.key), "tls.crt: the first certificate cannot be read"),
        ("a chain for a key", Some(&first.chain), Some(&first.chain), "tls.key: it holds no private key; write one"),
        (
            "half a key",
            Some(&first.chain),
            Some(&cut_key),
            "tls.key: the line -----END PRIVATE KEY----- is missing; the file is cut off: write all of it",
        ),
        (
            "a damaged key",
            Some(&first.chain),
            Some(no_key),
            "tls.key: the private key is damaged or of an unknown kind",
        ),
        (
            "a passphrase",
            Some(&first.chain),
            Some(&encrypted),
            "tls.key: the private key is encrypted with a passphrase",
        ),
        ("an old passphrase", Some(&first.chain), Some(old_encrypted), "tls.key: the private key is encrypted"),
        (
            "the key of another",
            Some(&first.chain),
            Some(&second.key),
            "tls.crt and tls.key: the private key does not belong to the certificate; write a certificate together",
        ),
        (
            "the wrong order",
            Some(&two),
            Some(&second.key),
            "tls.crt and tls.key: the private key belongs to certificate 2 of the chain; write that certificate first",
        ),
    ] {
        folder.write(chain, key);
        let error = folder.error();
        assert!(error.starts_with(said), "{case}: {error}");
    }
}

#[test]
fn a_bad_ca_file_is_named() {
    let folder = Folder::new();
    folder.write(Some("none"), None);
    let client = ClientTls { ca: folder.files.chain.clone(), server_name: None };
    let said = client.config().unwrap_err().to_string();
    assert!(said.contains("tls.crt: it holds no certificate"), "{said}");
}

#[test]
fn the_limits_of_a_chain_are_those_of_its_certificates() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(2021, 1, 1), date_time_ymd(2049, 12, 31));
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["a.b".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2050, 1, 1));
    let chain = params.signed_by(&key, &ca).unwrap().pem();
    let parse = |chain: &str| Certificate::parse(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let alone = parse(&chain);
    let time = |text: &str| Some(text.parse().unwrap());
    // UTCTime holds years up to 2049, GeneralizedTime the others.
    assert_eq!(alone.validity().from(), time("2020-01-01T00:00:00Z"));
    assert_eq!(alone.validity().until(), time("2050-01-01T00:00:00Z"));
    let both = parse(&format!("{chain}{}", ca.pem()));
    assert_eq!(both.validity().from(), time("2021-01-01T00:00:00Z"));
    assert_eq!(both.validity().until(), time("2049-12-31T00:00:00Z"));

    for (chain, now, said) in [
        (&alone, "2019-12-31T23:59:59Z", Some("the certificate is not valid before 2020-01-01T00:00:00Z")),
        (&alone, "2020-01-01T00:00:00Z", None),
        (&alone, "2050-01-01T00:00:00Z", None),
        (&alone, "2050-01-01T00:00:01Z", Some("the certificate expired at 2050-01-01T00:00:00Z")),
        (&both, "2020-06-01T00:00:00Z", Some("certificate 2 of the chain is not valid before 2021-01-01T00:00:00Z")),
        (&both, "2021-06-01T00:00:00Z", None),
        (&both, "2050-01-01T00:00:00Z", Some("certificate 2 of the chain expired at 2049-12-31T00:00:00Z")),
    ] {
        let problem = chain.validity().problem(now.parse().unwrap()).map(|it| it.to_string());
        assert_eq!(problem.as_deref(), said, "{now}");
    }

    let now = jiff::Timestamp::now();
    assert!(alone.is_signed_by(&ca.pem(), now) && !alone.is_signed_by(&valid().chain, now));
    assert!(!alone.is_signed_by("", now) && !alone.is_signed_by(&ca.pem(), jiff::Timestamp::UNIX_EPOCH));
    for (name, has) in [("a.b", true), ("10.0.0.1", true), ("b", false), ("10.0.0.2", false), ("*", false), ("", false)]
    {
        assert_eq!(alone.has_name(name), has, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_read_again_once_they_can_be_used() {
    let folder = Folder::new();
    let (first, second, third) = (valid(), valid(), valid());
    let (expired, future) = (pair(2010, 2020), pair(2090, 2100));
    folder.write(Some(&first.chain), Some(&first.key));
    let tls = folder.files.load().unwrap();
    let (watched, kept) = (folder.files.clone(), tls.clone());
    // Written after they were loaded and before they are watched.
    folder.write(Some(&second.chain), Some(&second.key));
    tokio::spawn(async move { watched.keep_current(&kept, Duration::from_secs(3)).await });
    for (case, chain, key, want) in [
        ("between loading and watching", &second.chain, &second.key, &second),
        ("the chain before its key", &third.chain, &second.key, &second),
        ("no chain at all", &String::new(), &second.key, &second),
        ("one that has expired", &expired.chain, &expired.key, &second),
        ("one that is not valid yet", &future.chain, &future.key, &second),
        ("both files", &third.chain, &third.key, &third),
    ] {
        folder.write(Some(chain), Some(key));
        tokio::time::sleep(Duration::from_secs(7)).await;
        let want = Certificate::parse(want.chain.as_bytes(), want.key.as_bytes()).unwrap();
        assert_eq!(tls.current().key.cert, want.key.cert, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_better_than_none_and_any_other_than_it() {
    let folder = Folder::new();
    let (expired, other) = (pair(2010, 2020), pair(2011, 2021));
    folder.write(Some(&expired.chain), Some(&expired.key));
    let tls = folder.files.load_for_dns().unwrap();
    assert_eq!(tls.current().validity().until(), Some("2020-01-01T00:00:00Z".parse().unwrap()));
    let (watched, kept) = (folder.files.clone(), tls.clone());
    tokio::spawn(async move { watched.keep_current(&kept, Duration::from_secs(3)).await });
    for next in [&other, &valid()] {
        folder.write(Some(&next.chain), Some(&next.key));
        tokio::time::sleep(Duration::from_secs(7)).await;
        let want = Certificate::parse(next.chain.as_bytes(), next.key.as_bytes()).unwrap();
        assert_eq!(tls.current().key.cert, want.key.cert);
    }
}
