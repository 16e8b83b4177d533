//! Everything in the zone, asked for and read by dnspython.

use std::fs;
use std::process::Command;

use maesh_dns_suite::{Responder, zone_file};
use maesh_test_support::{need_program, need_tool, repository};

#[test]
fn an_independent_decoder_reads_the_zone() {
    let (Some(python), Some(packages)) = (need_program("python3", "python3"), need_tool("dnspython")) else { return };
    let responder = Responder::start("127.0.0.1:0".parse().expect("an address"));
    let folder = tempfile::tempdir().expect("a folder");
    let zone = folder.path().join("zone");
    fs::write(&zone, zone_file()).expect("written");
    let output = Command::new(python)
        .arg(repository().join("tests/dns/clients/decode.py"))
        .args([responder.address().ip().to_string(), responder.address().port().to_string()])
        .arg(&zone)
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let count: usize = text.trim().parse().expect("a count");
    assert!(count > 1000, "{count} answers compared");
}
