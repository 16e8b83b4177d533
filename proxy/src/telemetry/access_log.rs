//! The access log: a line for each request and TCP connection, where it is turned on.
//!
//! Whoever carries traffic only puts a record into a bounded queue. A thread of its own makes lines of them and writes them.
//! While that thread cannot keep up, or standard output is not read, records are dropped and counted; traffic never waits.

mod line;

use std::{
    fs::OpenOptions,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::mpsc::{self, Receiver, SyncSender},
    time::{Duration, SystemTime},
};

use http::StatusCode;
use maesh_config::{ServiceName, policy::Percent};
use prometheus_client::metrics::counter::Counter;

use crate::{
    config::{AccessLogForm, AccessLogSettings},
    reason::Reason,
    telemetry::RequestDetails,
};

/// Records that wait to be written. One has at most about 1.5 kB.
const WAITING: usize = 2048;

/// Bytes of lines that are written at once.
const AT_ONCE: usize = 64 * 1024;

/// How long a proxy that ends waits for its last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// One request, or one TCP connection.
pub(crate) struct AccessRecord {
    /// The address that it came from.
    pub(crate) caller: IpAddr,
    /// The Service that was called and its port; `None` while unknown.
    pub(crate) called: Option<(ServiceName, u16)>,
    /// The Service that it was sent to.
    pub(crate) backend: Option<ServiceName>,
    /// The endpoint that answered, or was connected to.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Why the mesh answered by itself, or ended it, if it did.
    pub(crate) reason: Option<Reason>,
    /// Bytes from the caller, and to it.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) began: SystemTime,
    pub(crate) took: Duration,
    /// What only a request has.
    pub(crate) request: Option<RequestRecord>,
}

/// What only a request has.
pub(crate) struct RequestRecord {
    pub(crate) details: Box<RequestDetails>,
    /// The caller spoke HTTP/2.
    pub(crate) http2: bool,
    pub(crate) status: StatusCode,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) attempts: u32,
}

enum Message {
    Record(Box<AccessRecord>),
    /// Everything before this is written, and then said so.
    Flush(SyncSender<()>),
}

/// The access log of a proxy.
pub(crate) struct AccessLog {
    queue: SyncSender<Message>,
    sample: Percent,
    dropped: Counter,
}

impl AccessLog {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    /// When the file cannot be opened, or no thread be started.
    pub(crate) fn start(settings: &AccessLogSettings, written: Counter, dropped: Counter) -> io::Result<Self> {
        let to: Box<dyn Write + Send> = match &settings.file {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        let (queue, records) = mpsc::sync_channel(WAITING);
        let (form, counts) = (settings.form, (written, dropped.clone()));
        std::thread::Builder::new()
            .name("maesh-access-log".into())
            .spawn(move || write(&records, to, form, &counts))?;
        Ok(Self { queue, sample: settings.sample, dropped })
    }

    /// Whether a request is one of those that are logged; `draw` is uniformly random.
    pub(crate) fn takes(&self, draw: u64) -> bool {
        self.sample.takes(draw)
    }

    /// Logs `record`, or drops it.
    pub(crate) fn log(&self, record: AccessRecord) {
        if self.queue.try_send(Message::Record(Box::new(record))).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits, for a bounded time, until everything is written.
    pub(crate) fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // Whoever does not read the log must not hold up the end.
            let _ = written.recv_timeout(FLUSH);
        }
    }
}

/// Writes what comes until nobody can send any more.
fn write(
    records: &Receiver<Message>,
    mut to: impl Write,
    form: AccessLogForm,
    (written, dropped): &(Counter, Counter),
) {
    let mut text = String::new();
    let mut failed = false;
    while let Ok(first) = records.recv() {
        let (mut next, mut lines, mut flushed) = (Some(first), 0, None);
        text.clear();
        while let Some(message) = next {
            match message {
                Message::Record(record) => {
                    line::write(&mut text, &record, form);
                    lines += 1;
                }
                Message::Flush(done) => flushed = Some(done),
            }
            next = if text.len() < AT_ONCE { records.try_recv().ok() } else { None };
        }
        match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
            Ok(()) => {
                written.inc_by(lines);
                failed = false;
            }
            Err(error) => {
                dropped.inc_by(lines);
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(
                        %error,
                        "access log not written; lines are dropped until it can be. Check the disk, or what reads standard output"
                    );
                }
            }
        }
        if let Some(done) = flushed {
            // The proxy may have stopped waiting.
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A target that stands still while somebody holds the lock.
    struct Gate(Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(super) fn stream() -> AccessRecord {
        AccessRecord {
            caller: IpAddr::from([10, 0, 0, 1]),
            called: Some((ServiceName::new("shop", "db"), 5432)),
            backend: None,
            endpoint: Some(([10, 0, 0, 9], 5432).into()),
            reason: None,
            received: 5,
            sent: 7,
            began: SystemTime::UNIX_EPOCH,
            took: Duration::from_micros(1_500),
            request: None,
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_is_dropped_is_counted() {
        let target = Arc::new(Mutex::new(Vec::new()));
        let held = target.lock().expect("no panic");
        let (queue, records) = mpsc::sync_channel(WAITING);
        let (written, dropped) = (Counter::default(), Counter::default());
        let counts = (written.clone(), dropped.clone());
        let log = AccessLog { queue, sample: Percent::ALL, dropped: dropped.clone() };
        let to = Gate(target.clone());
        let writer = std::thread::spawn(move || write(&records, to, AccessLogForm::Json, &counts));
        // One batch may be with the thread that stands still.
        let many = 3 * WAITING as u64 + 1_000;
        (0..many).for_each(|_| log.log(stream()));
        assert!(dropped.get() >= many - WAITING as u64 - 1_000, "{}", dropped.get());
        drop(held);
        log.flush();
        drop(log);
        writer.join().expect("no panic");
        let lines = target.lock().expect("no panic").iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(written.get(), lines);
        assert_eq!(written.get() + dropped.get(), many);
    }
}
