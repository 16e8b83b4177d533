//! Sending spans to a receiver of OTLP, in batches, beside the traffic.
//!
//! A receiver that is away or slow costs spans and nothing else: a batch is tried a few times with growing pauses, then it is
//! dropped and counted, while the queue in front drops what does not fit.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use prost::Message;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{Span, otlp};
use crate::config::{TraceEndpoint, TraceProtocol, TraceSettings};

/// Spans in one batch.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long sending one batch may take.
const SEND: Duration = Duration::from_secs(10);
/// How many times a batch is sent.
const TRIES: u32 = 3;
/// The pause after a failure; each next one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a proxy that ends tries to send its last spans.
const LAST: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;

/// The method of gRPC.
const EXPORT: PathAndQuery = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");

/// Takes spans from the queue and sends them.
pub(crate) struct Exporting {
    spans: mpsc::Receiver<Span>,
    to: TraceEndpoint,
    protocol: TraceProtocol,
    node: Option<String>,
    exported: Counter,
    failed: Counter,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum SendError {
    /// It may be taken later.
    #[error("{0}")]
    Away(String),
    /// It will never be.
    #[error("refused: {0}")]
    Refused(String),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<hyper::Error> for SendError {
    fn from(error: hyper::Error) -> Self {
        Self::Away(error.to_string())
    }
}

/// How the last batches went.
struct Delivery {
    /// The pause after the next failure.
    pause: Duration,
    /// The last one was not taken.
    is_away: bool,
}

/// What spans are sent over.
enum Sender {
    Grpc(Channel),
    Http,
}

impl Exporting {
    pub(super) fn new(
        spans: mpsc::Receiver<Span>,
        settings: &TraceSettings,
        node: Option<&str>,
        exported: Counter,
        failed: Counter,
    ) -> Self {
        let (to, protocol) = (settings.endpoint.clone(), settings.protocol);
        Self { spans, to, protocol, node: node.map(str::to_owned), exported, failed }
    }

    /// Sends spans until `ending` turns true, and then what is left.
    pub(crate) async fn run(mut self, mut ending: watch::Receiver<bool>) {
        let sender = match self.protocol {
            TraceProtocol::Http => Sender::Http,
            TraceProtocol::Grpc => match Endpoint::from_shared(format!("http://{}", self.to.authority())) {
                Ok(endpoint) => Sender::Grpc(endpoint.connect_timeout(SEND).connect_lazy()),
                Err(error) => {
                    tracing::warn!(endpoint = %self.to, %error, "spans are not exported: the endpoint is no address. Correct --trace-endpoint");
                    return;
                }
            },
        };
        let mut state = Delivery { pause: PAUSE, is_away: false };
        let mut has_ended = false;
        while !has_ended {
            let mut batch = Vec::new();
            has_ended = self.gather(&mut batch, &mut ending).await;
            if !batch.is_empty() {
                self.deliver(&sender, batch, &mut state, &mut ending).await;
            }
        }
    }

    /// Collects the next batch; returns whether it is the last one.
    async fn gather(&mut self, batch: &mut Vec<Span>, ending: &mut watch::Receiver<bool>) -> bool {
        let Self { spans, .. } = self;
        let gathering = async {
            if spans.recv_many(batch, BATCH).await == 0 {
                return true;
            }
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                match timeout_at(until, spans.recv_many(batch, room)).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
            false
        };
        tokio::select! {
            is_last = gathering => return is_last,
            // An error means that nobody is left to say so.
            _ = ending.wait_for(|ending| *ending) => {}
        }
        while let Ok(span) = self.spans.try_recv() {
            batch.push(span);
        }
        true
    }

    /// Sends a batch, a few times if need be; only once, and for a short time, when the proxy ends.
    async fn deliver(
        &self,
        sender: &Sender,
        batch: Vec<Span>,
        state: &mut Delivery,
        ending: &mut watch::Receiver<bool>,
    ) {
        let count = batch.len() as u64;
        let request = otlp::request(self.node.as_deref(), batch);
        for _ in 0..TRIES {
            let has_ended = *ending.borrow();
            // A receiver that was away before is not waited for at the end.
            if has_ended && state.is_away {
                break;
            }
            let limit = async {
                if !has_ended {
                    tokio::select! {
                        () = sleep(SEND) => return,
                        _ = ending.wait_for(|ending| *ending) => {}
                    }
                }
                sleep(LAST).await;
            };
            let sent = tokio::select! {
                sent = self.send(sender, &request) => sent,
                () = limit => Err(SendError::Away("no answer in time".to_owned())),
            };
            match sent {
                Ok(()) => {
                    self.exported.inc_by(count);
                    state.pause = PAUSE;
                    if std::mem::take(&mut state.is_away) {
                        tracing::info!(endpoint = %self.to, "spans are exported again");
                    }
                    return;
                }
                Err(error) => {
                    self.say(&error, &mut state.is_away);
                    if matches!(error, SendError::Refused(_)) {
                        break;
                    }
                }
            }
            tokio::select! {
                () = sleep(state.pause) => state.pause = (state.pause * 2).min(LONGEST_PAUSE),
                _ = ending.wait_for(|ending| *ending) => {}
            }
        }
        self.failed.inc_by(count);
    }

    /// Logs a failure, unless the last batch failed too.
    fn say(&self, error: &SendError, is_away: &mut bool) {
        if !std::mem::replace(is_away, true) {
            tracing::warn!(
                endpoint = %self.to, %error,
                "spans not exported; trying again, and dropping those that do not fit. Check that a receiver of OTLP listens there, \
                 and speaks the protocol of --trace-protocol"
            );
        }
    }

    async fn send(&self, sender: &Sender, request: &otlp::ExportRequest) -> Result<(), SendError> {
        let rejected = match sender {
            Sender::Grpc(channel) => grpc(channel.clone(), request.clone()).await?,
            Sender::Http => self.post(request.encode_to_vec().into()).await?,
        };
        if let Some(rejected) = rejected.filter(|rejected| rejected.rejected_spans > 0) {
            let (spans, why) = (rejected.rejected_spans, rejected.error_message.escape_debug().to_string());
            tracing::debug!(spans, why, "the receiver rejected some spans");
        }
        Ok(())
    }

    /// Over HTTP/1.1, on a connection of its own: there is at most one batch a second.
    async fn post(&self, body: Bytes) -> Result<Option<otlp::PartialSuccess>, SendError> {
        let stream = TcpStream::connect((self.to.host(), self.to.port())).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(self.to.path())
            .header(header::HOST, self.to.authority())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("maesh-proxy/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| SendError::Refused(error.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = http_body_util::Limited::new(response.into_body(), ANSWER).collect().await;
            Ok::<_, SendError>((status, body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
        };
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        let (status, body) = tokio::select! {
            answered = &mut exchange => answered?,
            // It may end together with the answer.
            ended = &mut connection => match ended {
                Ok(()) => exchange.await?,
                Err(error) => return Err(error.into()),
            },
        };
        match status {
            status if status.is_success() => {
                Ok(otlp::ExportResponse::decode(body).ok().and_then(|answer| answer.partial_success))
            }
            // As the specification of OTLP lists them.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(SendError::Away(format!("status {status}"))),
            status => Err(SendError::Refused(format!("status {status}"))),
        }
    }
}

async fn grpc(channel: Channel, request: otlp::ExportRequest) -> Result<Option<otlp::PartialSuccess>, SendError> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER);
    grpc.ready().await.map_err(|error| SendError::Away(causes(&error)))?;
    let codec = ProstCodec::<otlp::ExportRequest, otlp::ExportResponse>::default();
    match grpc.unary(tonic::Request::new(request), EXPORT, codec).await {
        Ok(answer) => Ok(answer.into_inner().partial_success),
        Err(status) => {
            use tonic::Code::{
                Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable, Unknown,
            };
            let text = format!("{:?}: {}", status.code(), status.message().escape_debug());
            // As the specification of OTLP lists them. Unknown is what a transport that failed looks like.
            Err(match status.code() {
                Aborted | Cancelled | DataLoss | DeadlineExceeded | OutOfRange | ResourceExhausted | Unavailable
                | Unknown => SendError::Away(text),
                _ => SendError::Refused(text),
            })
        }
    }
}

/// An error with what caused it: of a transport, the first one says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
