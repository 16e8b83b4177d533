//! Endpoints that fail in every way, each for a Service of its own, all at once beside one that does not fail.
//!
//! Callers of a bad endpoint are told by the mesh why, or see that the response is not whole, within the time that a request
//! may take. Callers of the good one notice nothing. In the end nothing is left: no connection on either side, no byte, no
//! request in flight.

mod http1;
mod http2;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use maesh_config::policy::{BackendPolicy, CalledPolicy, Scheme};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::support::{
    Fed,
    caller::{Answer, Caller, Upload, Version},
    config, endpoints, policy, within,
};

/// How long a request to a bad endpoint may take, and a connection to it.
const REQUEST: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_millis(500);

/// Callers of each version of one bad endpoint, and requests of each of them.
const CALLERS: usize = 2;
const REQUESTS: usize = 2;

/// How a request to a bad endpoint may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The mesh answers for this reason.
    Refused(&'static str),
    /// The endpoint's response has begun, and its caller sees that it is not whole.
    BrokenOff,
    /// The endpoint's response with this body.
    Whole(&'static str),
}

/// Says when the callers have what they wanted: endpoints that hold their connections let go of them then.
#[derive(Clone)]
struct Over(watch::Receiver<bool>);

impl Over {
    /// Holds a connection without reading from it, and then reads until the other side has ended it.
    async fn hold(mut self, mut stream: TcpStream) {
        // An error means that the test is over.
        let _ = self.0.wait_for(|over| *over).await;
        let mut some = vec![0; 64 * 1024];
        while matches!(stream.read(&mut some).await, Ok(1..)) {}
    }
}

type Serve = Box<dyn Fn(TcpStream, Over) -> BoxFuture<'static, ()> + Send>;

/// One way to fail.
struct Habit {
    case: &'static str,
    upload: Upload,
    /// What comes first may depend on the system, so there can be several ends.
    want: &'static [End],
    serve: Serve,
}

impl Habit {
    /// An endpoint that does this with each connection.
    fn new<A>(case: &'static str, want: &'static [End], serve: impl Fn(TcpStream, Over) -> A + Send + 'static) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        let serve: Serve = Box::new(move |stream, over| Box::pin(serve(stream, over)));
        Self { case, upload: Upload::None, want, serve }
    }

    /// The same for requests with this body.
    fn with(self, upload: Upload) -> Self {
        Self { upload, ..self }
    }
}

#[tokio::test]
async fn endpoints_of_http1_that_fail_in_every_way() {
    beside_a_good_one(Scheme::Http, http1::habits()).await;
}

#[tokio::test]
async fn endpoints_of_http2_that_fail_in_every_way() {
    beside_a_good_one(Scheme::H2c, http2::habits()).await;
}

async fn beside_a_good_one(scheme: Scheme, habits: Vec<Habit>) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (over, is_over) = watch::channel(false);
    let server = endpoints::echo(scheme == Scheme::H2c, "good").await;
    let address = fed.http("good.shop", scheme, &[server.address]).await;
    let good: Vec<_> = Version::ALL.map(|version| well_served(version, address, is_over.clone())).into();

    let (mut callers, open) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for (number, habit) in habits.into_iter().enumerate() {
        let host = format!("bad-{number}.shop");
        let to = bad(&fed, &host, scheme, habit.serve, (&open, Over(is_over.clone()))).await;
        for version in Version::ALL.into_iter().cycle().take(CALLERS * Version::ALL.len()) {
            callers.spawn(badly_served(Caller::new(version, to, &host), (habit.case, habit.upload, habit.want)));
        }
    }
    let mut wrong = Vec::new();
    while let Some(found) = within(callers.join_next()).await {
        wrong.extend(found.expect("no panic"));
    }
    over.send_replace(true);
    for caller in good {
        let asked = within(caller).await.expect("all were answered well");
        assert!(asked > 20, "{asked} requests beside bad ones are no load");
    }
    assert!(wrong.is_empty(), "{} wrong answers: {wrong:#?}", wrong.len());
    nothing_is_left(&fed, &open).await;
}

/// A Service whose endpoint does this; returns where it is called. `open` counts the connections of the endpoint.
async fn bad(
    fed: &Fed,
    host: &str,
    scheme: Scheme,
    serve: Serve,
    (open, over): (&Arc<AtomicUsize>, Over),
) -> SocketAddr {
    let open = open.clone();
    let endpoint = endpoints::raw(move |stream| {
        let (serving, open) = (serve(stream, over.clone()), open.clone());
        open.fetch_add(1, Ordering::Relaxed);
        async move {
            serving.await;
            open.fetch_sub(1, Ordering::Relaxed);
        }
    })
    .await;
    let called = CalledPolicy { request_timeout: Some(REQUEST), ..CalledPolicy::default() };
    let backend = BackendPolicy { connect_timeout: CONNECT, ..policy(scheme) };
    fed.http_with(host, called, backend, &[endpoint]).await
}

/// Sends requests to a bad endpoint; returns what should not have come.
async fn badly_served(mut caller: Caller, (case, upload, want): (&'static str, Upload, &'static [End])) -> Vec<String> {
    let mut wrong = Vec::new();
    for number in 0..REQUESTS {
        let answer = caller.ask(&format!("/{number}"), upload).await;
        if !want.iter().any(|end| answer.is(*end)) {
            wrong.push(format!("{case}, {:?}, request {number}: want {want:?}: {answer:?}", caller.version));
        }
    }
    wrong
}

/// A caller of the good endpoint, who checks that each answer is the one to its own request. Returns how many those were.
fn well_served(version: Version, to: SocketAddr, over: watch::Receiver<bool>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let (mut caller, mut asked) = (Caller::new(version, to, "good.shop"), 0);
        while !*over.borrow() {
            let path = format!("/{version:?}/{asked}");
            let answer = caller.ask(&path, Upload::None).await;
            let right = answer.body.starts_with(&format!("good GET {path} "));
            assert!(answer.status == 200 && answer.is_whole && right, "{path}: {answer:?}");
            asked += 1;
        }
        asked
    })
}

/// What there is while somebody is served, and nothing of which must stay.
const GAUGES: [&str; 5] = [
    "maesh_proxy_connections_open",
    "maesh_http_requests_in_flight",
    "maesh_proxy_buffered_bytes",
    "maesh_proxy_backend_in_flight",
    "maesh_proxy_upstream_connections_kept",
];

/// Waits until nothing is left of any request. Kept connections are closed once they were unused for a while.
async fn nothing_is_left(fed: &Fed, open: &AtomicUsize) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut left: Vec<_> = GAUGES.map(|name| (name, fed.counted(name, &[]))).into();
        left.push(("connections of the endpoints", open.load(Ordering::Relaxed) as u64));
        left.retain(|(_, count)| *count > 0);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Answer {
    /// Whether it is what a request that ended so is given, and holds nothing of anybody else's response.
    fn is(&self, end: End) -> bool {
        if ["good", "poison"].iter().any(|word| self.body.contains(word)) {
            return false;
        }
        match end {
            End::Refused(reason) => {
                let status = match reason {
                    "connect_timeout" | "request_timeout" => 504,
                    "overloaded" => 503,
                    _ => 502,
                };
                let text = format!("maesh: {reason}: ");
                self.is_whole && self.status == status && self.reason == reason && self.body.starts_with(&text)
            }
            End::BrokenOff => self.status == 200 && self.reason.is_empty() && !self.is_whole,
            End::Whole(body) => self.status == 200 && self.reason.is_empty() && self.is_whole && self.body == body,
        }
    }
}
