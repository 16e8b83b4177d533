//! Drives one session over gRPC.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, server::Grpc};
use tonic_prost::ProstCodec;

use super::{
    Shared,
    session::{RequestKind, Session, Violation},
};
use crate::{
    auth::{Authenticate, Credentials, Principal, Refused},
    io::Peer,
    progress,
    xds::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

/// Largest request: one that resumes names everything that the subscriber has.
const REQUEST: usize = 64 << 20;
/// Responses handed to the connection that it did not take yet.
const QUEUE: usize = 8;

type Requests = Streaming<DeltaDiscoveryRequest>;
type Responses = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The gRPC service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) auth: Arc<dyn Authenticate>,
}

impl tower::Service<http::Request<tonic::body::Body>> for Service {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let method = Method(self.clone());
        Box::pin(async move {
            if request.uri().path() != xds::PATH {
                return Ok(Status::unimplemented("only DeltaAggregatedResources is served").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(REQUEST);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct Method(Service);

impl tonic::server::StreamingService<DeltaDiscoveryRequest> for Method {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type Future = BoxFuture<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Requests>) -> Self::Future {
        let Service { shared, auth } = self.0.clone();
        Box::pin(async move {
            let opened = open(&shared, &*auth, &request).await;
            let (principal, slot) = opened.inspect_err(|_| {
                shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            })?;
            shared.counters.streams.fetch_add(1, Ordering::Relaxed);
            let (sender, receiver) = mpsc::channel(QUEUE);
            let stream = ServerStream {
                id: shared.registry.open(),
                changes: shared.store.changes(),
                session: Session::default(),
                principal,
                responses: sender,
                shared,
                _slot: slot,
            };
            tokio::spawn(stream.run(request.into_inner()));
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

async fn open(
    shared: &Shared,
    auth: &dyn Authenticate,
    request: &Request<Requests>,
) -> Result<(Principal, OwnedSemaphorePermit), Status> {
    let peer = request.extensions().get::<Peer>();
    let credentials = Credentials {
        bearer: request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer ")),
        peer: peer.and_then(|peer| peer.address),
    };
    let principal = auth.authenticate(credentials).await.map_err(|refused| match refused {
        Refused::Unknown(why) => Status::unauthenticated(why),
        Refused::Forbidden(why) => Status::permission_denied(why),
        Refused::Unavailable(why) => Status::unavailable(why),
    })?;
    peer.iter().for_each(|peer| peer.authenticated());
    let accepts_stale = request.metadata().get(progress::ACCEPT_STALE).is_some();
    if let Some(reason) = shared.store.read().refusing().filter(|_| !accepts_stale) {
        return Err(progress::stale(&reason));
    }
    let slot = shared.slots.clone().try_acquire_owned();
    let slot = slot.map_err(|_| Status::resource_exhausted("as many subscribers as this controller serves"))?;
    Ok((principal, slot))
}

struct ServerStream {
    id: u64,
    shared: Arc<Shared>,
    session: Session,
    principal: Principal,
    changes: watch::Receiver<()>,
    responses: Responses,
    _slot: OwnedSemaphorePermit,
}

impl Drop for ServerStream {
    fn drop(&mut self) {
        self.shared.registry.close(self.id);
    }
}

impl ServerStream {
    async fn run(mut self, requests: Requests) {
        let ending = self.shared.ending.clone();
        let ended = tokio::select! {
            ended = self.serve(requests) => ended,
            () = ending.cancelled() => Err(Status::unavailable("this controller is stopping")),
        };
        let Err(status) = ended else { return };
        if matches!(status.code(), Code::DeadlineExceeded | Code::Aborted) {
            self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!(subscriber = ?self.session.identity().map(|it| &it.id), %status, "discovery stream ended");
        // The subscriber may be gone, or not reading: then it learns by the end of the connection.
        let _ = self.responses.try_send(Err(status));
    }

    async fn serve(&mut self, mut requests: Requests) -> Result<(), Status> {
        let stall = self.shared.options.stall;
        // Since when an answer is owed: a long quiet before a push is nobody's delay.
        let mut waiting: Option<Instant> = None;
        let mut pushed: Option<Instant> = None;
        loop {
            if self.push().await? {
                pushed = Some(Instant::now());
            }
            if let Some(seen) = self.session.take_changed() {
                self.session.share(self.shared.registry.update(self.id, seen));
            }
            if self.session.take_advanced() {
                self.shared.registry.acknowledged();
            }
            waiting = self.session.owed_an_answer().then(|| waiting.unwrap_or_else(Instant::now));
            tokio::select! {
                request = requests.message() => {
                    let Some(request) = request? else { return Ok(()) };
                    self.receive(request)?;
                    waiting = None;
                }
                changed = self.changes.changed() => {
                    if changed.is_err() { return Ok(()) }
                    self.pace(pushed).await;
                }
                () = stalled(waiting, stall) => {
                    return Err(Status::deadline_exceeded("no answer to a response in time; resume on a new stream"));
                }
            }
        }
    }

    /// Lets changes that come in a row be sent together.
    async fn pace(&mut self, pushed: Option<Instant>) {
        if let Some(pushed) = pushed {
            tokio::time::sleep_until(pushed + self.shared.options.pace).await;
            self.changes.mark_unchanged();
        }
    }

    fn receive(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let kind = self.session.receive(request, &self.shared.store).map_err(|violation| match violation {
            Violation::TooMuch => Status::resource_exhausted(violation.to_string()),
            Violation::NoNode | Violation::NoType => Status::invalid_argument(violation.to_string()),
        })?;
        if let Some(identity) = self.session.identity() {
            self.principal.may_be(identity).map_err(Status::permission_denied)?;
        }
        match kind {
            RequestKind::Ack => self.shared.counters.acks.fetch_add(1, Ordering::Relaxed),
            RequestKind::Nack => self.shared.counters.nacks.fetch_add(1, Ordering::Relaxed),
            RequestKind::Interest | RequestKind::Stale => 0,
        };
        Ok(())
    }

    /// Sends everything that is due; whether that was anything.
    async fn push(&mut self) -> Result<bool, Status> {
        let Shared { store, options, counters, .. } = &*self.shared;
        let mut any = false;
        loop {
            let next = self.session.next(store, options.chunk);
            let next = next.map_err(|_| Status::aborted("too far behind; resume on a new stream"))?;
            let Some(push) = next else { return Ok(any) };
            send(&self.responses, push.response, options.stall).await?;
            counters.pushes.fetch_add(1, Ordering::Relaxed);
            counters.bytes.fetch_add(push.bytes as u64, Ordering::Relaxed);
            any = true;
        }
    }
}

/// Ends once an answer has been owed for this long; never while none is.
async fn stalled(since: Option<Instant>, stall: Duration) {
    match since {
        Some(since) => tokio::time::sleep_until(since + stall).await,
        None => std::future::pending().await,
    }
}

async fn send(responses: &Responses, response: DeltaDiscoveryResponse, stall: Duration) -> Result<(), Status> {
    match tokio::time::timeout(stall, responses.send(Ok(response))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the subscriber left")),
        Err(_) => Err(Status::deadline_exceeded("responses are not taken; resume on a new stream")),
    }
}
