//! An open-loop client: requests start by the clock, however slow the answers are, each on a connection of its own, and
//! every one is logged with its time and outcome. So "0 failed" is a count, and a failure has its reason.

use std::error::Error;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use crate::get;

/// One request and what came of it.
struct Request {
    /// When it was due, in milliseconds since 1970.
    at: u128,
    took: Duration,
    /// Why it failed.
    failure: Option<String>,
}

/// `load URL REQUESTS_PER_SECOND SECONDS`: one JSON line a request, then one with the counts; an error when one failed.
pub(crate) fn main(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [url, rate, seconds] = arguments else { return Err("load needs URL REQUESTS_PER_SECOND SECONDS".into()) };
    let (rate, seconds): (u32, u32) = (rate.parse()?, seconds.parse()?);
    if rate == 0 {
        return Err("0 requests a second are no load".into());
    }
    let failed = run(url, rate, rate * seconds, &mut io::stdout())?;
    if failed > 0 { Err(format!("{failed} requests failed").into()) } else { Ok(()) }
}

/// Starts `count` requests, `rate` a second; returns how many failed.
fn run(url: &str, rate: u32, count: u32, log: &mut impl Write) -> io::Result<u32> {
    let (tell, told) = mpsc::channel();
    let url = url.to_owned();
    let clock = thread::spawn(move || {
        let since = Instant::now();
        for index in 0..count {
            wait_until(since + Duration::from_secs(1) * index / rate);
            let (tell, url) = (tell.clone(), url.clone());
            thread::spawn(move || {
                let at = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis());
                let since = Instant::now();
                let failure = get::body(&url).err().map(|error| error.to_string());
                // Nobody listens once the process ends.
                let _ = tell.send(Request { at, took: since.elapsed(), failure });
            });
        }
    });
    let mut failed = 0;
    let mut slowest = Duration::ZERO;
    let mut done = 0;
    for request in told {
        failed += u32::from(request.failure.is_some());
        slowest = slowest.max(request.took);
        done += 1;
        writeln!(
            log,
            "{}",
            json!({ "at": request.at, "took_us": request.took.as_micros(), "failure": request.failure })
        )?;
    }
    // A request whose thread could not start or ended without a word has failed.
    failed += count - done;
    writeln!(log, "{}", json!({ "requests": count, "failed": failed, "slowest_us": slowest.as_micros() }))?;
    drop(clock);
    Ok(failed)
}

/// Parks until the clock says `due`.
fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_request_is_logged_and_every_failure_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                // Two in ten: a bad status, and a body that is cut.
                let answer = match index {
                    3 => "HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n",
                    7 => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfo",
                    _ => "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nfoo",
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut log = Vec::new();
        assert_eq!(run(&url, 100, 10, &mut log).unwrap(), 2);
        let log = String::from_utf8(log).unwrap();
        assert_eq!(log.lines().count(), 11, "{log}");
        assert!(log.contains("503 no") && log.contains("2 bytes of Some(5) arrived"), "{log}");
    }
}
