//! Load on a `maesh dev`: threads that call again and again, and say what failed.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hickory_proto::rr::RecordType;

use super::{
    Dev,
    http::{Client, get},
    resolver::resolve,
    roles::outage,
};

/// Pause of a caller between two calls.
const PACE: Duration = Duration::from_millis(5);

/// Callers of the Services `web`, `api` and `db` in shop, of which the last one carries TCP, and of their names.
pub struct Load {
    over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(dev: &Dev) -> Self {
        let mut load = Self { over: Arc::default(), asked: Arc::default(), callers: Vec::new() };
        let [web, api, db] = ["web", "api", "db"].map(|name| dev.served_at(&format!("{name}.shop.maesh")));
        let mut open: Option<Client> = None;
        load.caller("web", move || {
            let mut client = open.take().map_or_else(|| Client::connect(web), Ok).map_err(|error| error.to_string())?;
            let answer = client.get("web.shop.maesh", "/").map_err(|error| error.to_string())?;
            open = Some(client);
            if answer.status == 200 && answer.by().starts_with("web-") { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        load.caller("api", move || match get(api, "api.shop.maesh", "/") {
            Ok(answer) if (answer.status, answer.by()) == (200, "api") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        load.caller("db", move || {
            let back = std::panic::catch_unwind(|| super::echo(db, b"through"));
            if back.as_deref().ok() == Some(b"through") { Ok(()) } else { Err(format!("{back:?}")) }
        });
        let (dns, caller) = (dev.dns(), IpAddr::from([127, 0, 0, 1]));
        load.caller("names", move || {
            for (name, want) in [("web", web), ("db", db)] {
                let answer = resolve(caller, &[dns], &format!("{name}.shop.maesh"), RecordType::A);
                match answer {
                    Ok(answer) if answer.addresses == [want.ip()] => {}
                    other => return Err(format!("{name}: {other:?}")),
                }
            }
            Ok(())
        });
        load
    }

    /// One more caller, who calls again and again.
    pub fn caller(&mut self, who: &'static str, mut call: impl FnMut() -> Result<(), String> + Send + 'static) {
        let (over, asked) = (self.over.clone(), self.asked.clone());
        self.callers.push(std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !over.load(Ordering::Acquire) {
                asked.fetch_add(1, Ordering::Relaxed);
                failed.extend(call().err().map(|error| format!("{who}: {error}")));
                outage(PACE);
            }
            failed
        }));
    }

    /// How many calls there were so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// How many calls there were, and what failed.
    pub fn finish(self) -> (usize, Vec<String>) {
        self.over.store(true, Ordering::Release);
        let failed = self.callers.into_iter().flat_map(|caller| caller.join().expect("a caller that ended")).collect();
        (self.asked.load(Ordering::Relaxed), failed)
    }
}
