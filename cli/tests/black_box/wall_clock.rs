//! The time of day jumps by a day, forth and back, under load: no request fails, and what goes by dates goes on to.
//!
//! What the program measures, it measures by a clock that does not jump. By the time of day go faults that end at a date,
//! certificates, tokens, and what is written into logs.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use jiff::{SignedDuration, Timestamp};
use maesh_test_support::need_program;

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    http::get,
    load::Load,
    manifest::{config_map, save, service, slices},
    tls::{Authority, TlsBackend},
};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Calls after each jump.
const CALLS: usize = 300;

/// The time of day of a process that is started with [`Self::environment`].
struct WallClock {
    _folder: tempfile::TempDir,
    library: PathBuf,
    ahead: PathBuf,
    written: File,
}

impl WallClock {
    /// Builds the library that does it; skips the test where there is no compiler.
    fn new() -> Option<Self> {
        let compiler = need_program("cc", "gcc libc6-dev")?;
        let folder = tempfile::tempdir().unwrap();
        let [library, source, ahead] = ["wall_clock.so", "wall_clock.c", "ahead"].map(|name| folder.path().join(name));
        std::fs::write(&source, include_str!("support/wall_clock.c")).unwrap();
        let built = Command::new(compiler).args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
        assert!(built.unwrap().success());
        let mut written = File::create(&ahead).unwrap();
        written.write_all(&[0; 8]).unwrap();
        Some(Self { _folder: folder, library, ahead, written })
    }

    fn environment(&self) -> [(&str, &Path); 2] {
        [("LD_PRELOAD", &self.library), ("WALL_CLOCK", &self.ahead)]
    }

    /// Sets it so many seconds ahead of what it is.
    fn set_ahead(&self, seconds: i64) {
        self.written.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

/// The Services that are called, and one that refuses every request for half a day.
fn manifests(folder: &Path, [web, api, db]: [&Backend; 3], (pay, authority): (&TlsBackend, &Authority)) {
    let limited = "maesh.containo.us/ratelimit-average: \"1000\", maesh.containo.us/retry-attempts: \"2\"";
    save(folder, "web.yaml", &(service("shop", "web", 8080, limited) + &slices("shop", "web", &[web.address])));
    save(folder, "api.yaml", &(service("shop", "api", 8080, "") + &slices("shop", "api", &[api.address])));
    let tcp = "maesh.containo.us/traffic-type: tcp";
    save(folder, "db.yaml", &(service("shop", "db", 5432, tcp) + &slices("shop", "db", &[db.address])));
    let https = "maesh.containo.us/scheme: https, maesh.containo.us/tls-ca: internal-ca";
    save(folder, "pay.yaml", &(service("shop", "pay", 8443, https) + &slices("shop", "pay", &[pay.address])));
    save(folder, "ca.yaml", &config_map("internal-ca", &authority.pem()));
    let until = Timestamp::now() + SignedDuration::from_hours(12);
    let fault = format!("maesh.containo.us/fault-abort: \"503 100%\", maesh.containo.us/fault-until: \"{until:.0}\"");
    save(folder, "odd.yaml", &(service("shop", "odd", 8080, &fault) + &slices("shop", "odd", &[api.address])));
}

/// A stream that stays open, and says something again and again.
fn stream_that_stays(db: std::net::SocketAddr) -> impl FnMut() -> Result<(), String> {
    let mut stream = TcpStream::connect(db).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    move || {
        let mut back = [0; 5];
        let said = stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut back));
        said.map_err(|error| error.to_string())
    }
}

#[test]
fn the_time_of_day_may_jump() {
    let Some(clock) = WallClock::new() else { return };
    let (web, api, db) = (Backend::http("web-0"), Backend::http("api"), Backend::echo());
    let authority = Authority::new();
    let pay = TlsBackend::start("pay", authority.serving("pay.shop.svc", 2099));
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    manifests(folder.path(), [&web, &api, &db], (&pay, &authority));
    let log = place.path().join("access.log");
    let flags = ["--access-log", "json", "--access-log-file", log.to_str().unwrap()];
    let mut dev = Dev::start_in(&clock.environment(), folder.path(), &flags);
    assert!(dev.early.is_empty(), "{:#?}", dev.early);

    let mut load = Load::start(&dev);
    let [db_at, pay_at, odd_at] = ["db", "pay", "odd"].map(|name| dev.served_at(&format!("{name}.shop.maesh")));
    load.caller("a stream that stays", stream_that_stays(db_at));
    load.caller("pay", move || match get(pay_at, "pay.shop.maesh", "/") {
        Ok(answer) if answer.status == 200 && answer.by() == "pay" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for (number, days) in [0, 1, -1, 0, 1, 0, -1, 1].into_iter().enumerate() {
        clock.set_ahead(days * DAY);
        let answer = get(odd_at, "odd.shop.maesh", "/").unwrap();
        let want = if days > 0 { (200, None) } else { (503, Some("fault_injected".to_owned())) };
        assert_eq!((answer.status, answer.field("x-maesh-reason")), want, "{days} days ahead, {number}");
        // What is configured now takes effect.
        let name = format!("new-{number}");
        let text = service("shop", &name, 8080, "") + &slices("shop", &name, &[api.address]);
        save(folder.path(), "new.yaml", &text);
        dev.await_changed(&format!("{name}.shop.maesh"));
        let before = load.asked();
        await_condition("calls go on", || (load.asked() >= before + CALLS).then_some(()));
    }
    let (asked, failed) = load.finish();
    assert!(failed.is_empty(), "{} of {asked} failed: {:#?}", failed.len(), &failed[..failed.len().min(20)]);
    assert!(dev.terminate().success());
    // The last jump was forth: requests since then have the dates of the time of day.
    let lines = std::fs::read_to_string(log).unwrap();
    let date = |line: &str| -> Timestamp {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["time"].as_str().unwrap().parse().unwrap()
    };
    let tomorrow = Timestamp::now() + SignedDuration::from_hours(12);
    let ahead = lines.lines().filter(|line| line.contains("\"method\"") && date(line) > tomorrow).count();
    assert!(ahead > 0, "no line of {} is dated tomorrow", lines.lines().count());
}
