//! One connection of a caller, as its requests see it, and as the sweep sees it.
//!
//! No timer runs for a connection. It notes when it became idle, or when a head began to arrive; a sweep that passes
//! now and then ends the ones that stayed so for too long.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use http::HeaderValue;
use maesh_config::model::Account;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{exchange::Activity, identity::CallerIdentity};
use crate::{
    admission::{ConnectionPermit, ExchangePermit},
    balance::LastShare,
    buffers::CallerBytes,
    http2::FrameBudget,
    reason::Reason,
    socket::{PeerEnd, Socket},
    state::{Listening, Shared},
    worker::Worker,
};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Between requests.
    Idle = 0,
    /// The head of a request is arriving, or what begins a connection of HTTP/2.
    Head = 1,
    /// A request is being answered.
    Busy = 2,
    /// Streams of HTTP/2, or another protocol after an upgrade: it has rules of its own.
    Free = 3,
}

/// What happened last to the requests on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Last {
    /// One began.
    Began = 0,
    /// The answer of one ended.
    Answered = 1,
    /// Nothing since somebody looked.
    Nothing = 2,
    /// The answer of one was written to its end, while the caller was still sending its body.
    Flushed = 3,
}

/// What ended when everything written had reached the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing.
    Nothing,
    /// An answer, whose request has not come to its end.
    Answer,
    /// An answer, and its request.
    Exchange,
}

/// One more connection to an endpoint than the request itself needs; over when dropped.
pub(crate) struct ExtraConnection {
    _own: Option<ExchangePermit>,
    _extra: ExchangePermit,
}

/// One connection of a caller.
pub(crate) struct Caller {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) listening: Arc<Listening>,
    /// What it may open.
    pub(crate) permit: ConnectionPermit,
    /// Address of the caller.
    pub(crate) address: IpAddr,
    /// The same as a field's value.
    pub(crate) address_text: HeaderValue,
    /// Its `X-Forwarded-*` are kept.
    pub(crate) trusted: bool,
    /// It speaks HTTP/2.
    pub(crate) http2: bool,
    stage: AtomicU8,
    since: AtomicU32,
    last: AtomicU8,
    ended: AtomicBool,
    /// Its socket is closed.
    closed: AtomicBool,
    /// The upload that is to hear of it.
    upload: AtomicWaker,
    /// It has been idle for long enough to be parked.
    parks: AtomicBool,
    /// It is to end unless a request has come.
    dismissed: AtomicBool,
    /// It was there while a port was leaving.
    saw_leaving: AtomicBool,
    /// It is asked to come back on a new connection.
    sent_away: Notify,
    /// Who it is for access control.
    pub(super) identity: CallerIdentity,
    /// It asked for what is not here, and may have connected while it was.
    misplaced: AtomicBool,
    /// When bytes of the request on a connection of HTTP/1.1 moved last.
    pub(crate) activity: Arc<Activity>,
    /// Where its last request was counted.
    pub(crate) last_share: LastShare,
    /// Requests that have begun.
    begun: AtomicU32,
    /// The request, counted from 1, whose head is malformed in a way that its parser does not see; 0 for none.
    malformed: AtomicU32,
    /// A head, or in HTTP/2 a frame or header block, has begun to arrive and is not complete.
    partial_head: AtomicBool,
    /// When it began, in HTTP/2.
    partial_since: AtomicU32,
    /// The request of HTTP/1.1, counted from 1, whose body has not come to its end; 0 for none.
    uploading: AtomicU32,
    /// Bytes that this body lacks; [`u64::MAX`] where only its chunks say.
    body_left: AtomicU64,
    /// Whether the caller has ended its side, once there is a socket.
    pub(super) peer_end: OnceLock<PeerEnd>,
    /// The request, counted from 1, that was looked at after the caller had ended its side; 0 for none.
    pub(super) looked_at: AtomicU32,
    /// Bytes that have come since somebody asked.
    received: AtomicUsize,
    /// Streams of HTTP/2 that are open.
    streams: AtomicUsize,
    /// Frames of HTTP/2 that do no work and may still come.
    pub(crate) frames: FrameBudget,
    /// A response is under way whose end is the end of the connection.
    unfinished: AtomicBool,
    /// Bytes that are held for it and counted by connection.
    held: AtomicUsize,
    /// Where they are counted, once there are any.
    bytes: OnceLock<Arc<CallerBytes>>,
    waker: Mutex<Option<Waker>>,
}

impl Caller {
    /// A connection on which the first bytes have just arrived.
    pub(crate) fn new(
        shared: Arc<Shared>,
        worker: Arc<Worker>,
        listening: Arc<Listening>,
        address: IpAddr,
        http2: bool,
        permit: ConnectionPermit,
    ) -> Arc<Self> {
        let text = HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Arc::new(Self {
            trusted: shared.config.trusted.iter().any(|net| net.contains(&address)),
            since: AtomicU32::new(shared.clock.coarse()),
            frames: FrameBudget::of_caller(shared.clock.coarse()),
            activity: Activity::new(shared.clock.clone()),
            shared,
            worker,
            listening,
            permit,
            address,
            address_text: text,
            http2,
            stage: AtomicU8::new(Stage::Head as u8),
            last: AtomicU8::new(Last::Began as u8),
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            upload: AtomicWaker::new(),
            parks: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            saw_leaving: AtomicBool::new(false),
            sent_away: Notify::new(),
            identity: CallerIdentity::default(),
            misplaced: AtomicBool::new(false),
            last_share: LastShare::default(),
            begun: AtomicU32::new(0),
            malformed: AtomicU32::new(0),
            partial_head: AtomicBool::new(false),
            partial_since: AtomicU32::new(0),
            uploading: AtomicU32::new(0),
            body_left: AtomicU64::new(0),
            peer_end: OnceLock::new(),
            looked_at: AtomicU32::new(0),
            received: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            unfinished: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            bytes: OnceLock::new(),
            waker: Mutex::new(None),
        })
    }

    /// Admits one more connection to an endpoint than the request itself needs: for a second attempt, or a copy. `None` when
    /// the caller holds too much.
    pub(crate) fn extra_connection(&self) -> Option<ExtraConnection> {
        // On HTTP/1.1, the connection pays for the first one, which is that of the request.
        let own = if self.http2 { None } else { Some(self.permit.exchange()?) };
        Some(ExtraConnection { _own: own, _extra: self.permit.exchange()? })
    }

    /// On HTTP/1.1: it has ended its side. It may wait for its response, or be gone: nobody can tell.
    pub(crate) fn has_ended_its_side(&self) -> bool {
        !self.http2 && self.peer_end.get().is_some_and(PeerEnd::is_seen)
    }

    /// What it is doing.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Idle,
            1 => Stage::Head,
            // The rest of an upload has come after its answer.
            2 if self.is_flushed() && !self.is_receiving() => {
                self.last.store(Last::Nothing as u8, Ordering::Relaxed);
                self.rest()
            }
            2 => Stage::Busy,
            _ => Stage::Free,
        }
    }

    /// An answer was written to its end before the body of its request had come.
    fn is_flushed(&self) -> bool {
        self.last.load(Ordering::Relaxed) == Last::Flushed as u8
    }

    /// What comes next is the rest of a body. Where nobody reads that, it is enough that it has come: the parser skips it.
    fn is_receiving(&self) -> bool {
        self.activity.is_uploading() && (self.is_uploading() || !self.activity.is_unread())
    }

    /// The request is over. What comes next may have begun to arrive together with it.
    fn rest(&self) -> Stage {
        let stage = if self.partial_head.load(Ordering::Relaxed) { Stage::Head } else { Stage::Idle };
        self.since.store(self.shared.clock.coarse(), Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
        stage
    }

    fn enter(&self, stage: Stage) {
        if self.stage() != Stage::Free {
            self.stage.store(stage as u8, Ordering::Relaxed);
        }
    }

    /// Notes whether a head has begun to arrive and is not complete.
    pub(crate) fn set_partial_head(&self, partial: bool) {
        self.partial_head.store(partial, Ordering::Relaxed);
    }

    /// A frame or header block of HTTP/2 has begun to arrive, and is not complete.
    pub(crate) fn partial_head_began(&self) {
        self.partial_since.store(self.shared.clock.coarse(), Ordering::Relaxed);
        self.set_partial_head(true);
    }

    /// For how long a frame or header block of HTTP/2 has been incomplete; `None` while nothing is.
    pub(crate) fn partial_head(&self) -> Option<Duration> {
        let is_partial = self.partial_head.load(Ordering::Relaxed);
        is_partial.then(|| self.shared.clock.since(self.partial_since.load(Ordering::Relaxed)))
    }

    /// Notes which request of HTTP/1.1, counted from 1, has a body that has not come to its end, 0 for none; and how
    /// many bytes that lacks, unless only its chunks say.
    pub(crate) fn set_uploading(&self, request: u32, left: Option<u64>) {
        self.uploading.store(request, Ordering::Relaxed);
        self.body_left.store(left.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes that this body lacks, unless only its chunks say.
    pub(super) fn body_left(&self) -> Option<u64> {
        Some(self.body_left.load(Ordering::Relaxed)).filter(|left| *left != u64::MAX)
    }

    /// The socket of the connection is `socket`.
    pub(crate) fn set_socket(&self, socket: &Socket) {
        // There is only one.
        let _ = self.peer_end.set(socket.peer_end());
    }

    /// Whether the body of the request that has begun last has not come to its end.
    pub(crate) fn is_uploading(&self) -> bool {
        let uploading = self.uploading.load(Ordering::Relaxed);
        uploading != 0 && uploading == self.begun.load(Ordering::Relaxed)
    }

    /// Ready once the connection is closed and the body of its request has not come to its end. The last task that asked is
    /// woken.
    pub(super) fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        self.upload.register(cx.waker());
        let is_gone = self.closed.load(Ordering::Acquire) && self.is_uploading();
        if is_gone { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The connection is closed.
    pub(super) fn closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.upload.wake();
    }

    /// The first bytes of a head arrived.
    pub(crate) fn head_began(&self) {
        self.since.store(self.shared.clock.coarse(), Ordering::Relaxed);
        self.enter(Stage::Head);
    }

    /// A request is complete enough to be worked on.
    pub(crate) fn request_began(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.last.store(Last::Began as u8, Ordering::Relaxed);
        self.enter(Stage::Busy);
    }

    /// Requests that have begun.
    pub(in crate::http) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// The last byte of an answer is on its way to the socket.
    pub(crate) fn answer_ended(&self) {
        self.last.store(Last::Answered as u8, Ordering::Relaxed);
    }

    /// Everything written has reached the socket; returns what this ended.
    pub(crate) fn flushed(&self) -> Flushed {
        if self.stage() != Stage::Busy {
            return Flushed::Nothing;
        }
        if self.is_receiving() {
            let answered = (Last::Answered as u8, Last::Flushed as u8);
            let noted = self.last.compare_exchange(answered.0, answered.1, Ordering::Relaxed, Ordering::Relaxed);
            return if noted.is_ok() { Flushed::Answer } else { Flushed::Nothing };
        }
        if self.look() != Last::Answered as u8 {
            return Flushed::Nothing;
        }
        self.rest();
        Flushed::Exchange
    }

    /// A response that ends with the connection is, or is no longer, under way: an end of the connection meanwhile would
    /// be taken for the end of the body.
    pub(crate) fn set_unfinished(&self, unfinished: bool) {
        self.unfinished.store(unfinished, Ordering::Relaxed);
    }

    /// Whether an end of the connection would be taken for the end of a body.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// A connection of HTTP/2 has begun as it should.
    pub(crate) fn opened(&self) {
        self.since.store(self.shared.clock.coarse(), Ordering::Relaxed);
        self.stage.store(Stage::Free as u8, Ordering::Relaxed);
    }

    /// The connection carries another protocol from now on.
    pub(crate) fn upgraded(&self) {
        self.stage.store(Stage::Free as u8, Ordering::Relaxed);
    }

    /// The head of this request, counted from 1, is malformed.
    pub(crate) fn set_malformed(&self, request: u32) {
        self.malformed.store(request, Ordering::Relaxed);
    }

    /// Whether the head of the request that has begun last is malformed.
    pub(crate) fn is_malformed(&self) -> bool {
        let malformed = self.malformed.load(Ordering::Relaxed);
        malformed != 0 && malformed == self.begun.load(Ordering::Relaxed)
    }

    /// Whether so many requests have begun, and all of them were answered. What is left of their bodies may still be on its way to
    /// endpoints.
    pub(crate) fn has_answered(&self, requests: u32) -> bool {
        let is_answered = self.stage() == Stage::Idle || self.is_flushed();
        self.begun.load(Ordering::Relaxed) == requests && is_answered
    }

    /// Bytes have come.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether `bytes` or more have come since this was last true.
    pub(crate) fn has_received(&self, bytes: usize) -> bool {
        let enough = self.received.load(Ordering::Relaxed) >= bytes;
        if enough {
            self.received.store(0, Ordering::Relaxed);
        }
        enough
    }

    /// A stream of HTTP/2 was opened.
    pub(crate) fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// A stream of HTTP/2 has ended.
    pub(crate) fn stream_ended(&self) {
        if self.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.since.store(self.shared.clock.coarse(), Ordering::Relaxed);
        }
    }

    /// How long a connection of HTTP/2 has been without any stream; `None` while it has some.
    pub(crate) fn without_streams(&self) -> Option<Duration> {
        (self.streams.load(Ordering::Relaxed) == 0).then(|| self.since())
    }

    /// Returns what happened last, and resets it to [`Last::Nothing`].
    fn look(&self) -> u8 {
        self.last.swap(Last::Nothing as u8, Ordering::Relaxed)
    }

    /// How long it has been in its stage.
    pub(crate) fn since(&self) -> Duration {
        self.shared.clock.since(self.since.load(Ordering::Relaxed))
    }

    /// How long no stream of an HTTP/2 connection has begun or ended. Requests note only that they happened; the time
    /// is noted here. So the result is exact only if this is called regularly.
    pub(crate) fn quiet(&self) -> Duration {
        if self.look() != Last::Nothing as u8 {
            self.since.store(self.shared.clock.coarse(), Ordering::Relaxed);
        }
        self.since()
    }

    /// A port is leaving; this connection may be one of those that are used for it.
    pub(crate) fn sees_leaving(&self) {
        self.saw_leaving.store(true, Ordering::Relaxed);
    }

    /// Whether a port was leaving while it was there.
    pub(crate) fn saw_leaving(&self) -> bool {
        self.saw_leaving.load(Ordering::Relaxed)
    }

    /// Where the bytes are counted that are held for its address.
    pub(super) fn bytes(&self) -> &Arc<CallerBytes> {
        self.bytes.get_or_init(|| self.shared.buffers.of(self.address))
    }

    /// So many bytes are held for it in place of `before`.
    pub(super) fn holds(&self, before: usize, bytes: usize) {
        if bytes >= before {
            self.held.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }

    /// Bytes that are held for it and counted by connection.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Ends the connection as if the caller had closed it.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks the connection, which is idle, to end. Its worker has the last word: a request may have come meanwhile.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether it was asked to.
    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Relaxed)
    }

    /// Whether it was asked to since the last call, and is still between requests.
    pub(super) fn takes_dismissal(&self) -> bool {
        self.is_dismissed() && self.dismissed.swap(false, Ordering::Relaxed) && self.stage() == Stage::Idle
    }

    /// Asks the connection, which is idle, to give its buffers back.
    pub(super) fn park(&self) {
        if !self.parks.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Whether it was asked to, and is still idle.
    pub(super) fn is_to_park(&self) -> bool {
        self.parks.load(Ordering::Relaxed) && self.stage() == Stage::Idle
    }

    /// It has buffers again.
    pub(super) fn unpark(&self) {
        self.parks.store(false, Ordering::Relaxed);
    }

    /// Whether it is known who calls, where access depends on it.
    pub(crate) fn is_identified(&self) -> bool {
        self.shared.trusts_identities() && self.identity.is_known(&self.shared)
    }

    /// Waits until it is known who calls, where access depends on it.
    ///
    /// # Errors
    /// As [`Shared::identify`].
    pub(crate) async fn identify(&self) -> Result<(), Reason> {
        self.shared.identify(self.address).await?;
        self.identity.identified(&self.shared, self.address);
        Ok(())
    }

    /// Who calls, for access control; `None` for nobody.
    pub(crate) fn account(&self) -> Option<Account> {
        self.identity.account(&self.shared, self.address)
    }

    /// Asks the caller of an HTTP/2 connection to send what comes next on a new one.
    pub(crate) fn send_away(&self) {
        self.sent_away.notify_one();
    }

    /// As [`Self::send_away`], at once: until then its requests are refused.
    pub(crate) fn send_away_misplaced(&self) {
        self.misplaced.store(true, Ordering::Relaxed);
        self.send_away();
    }

    /// Whether [`Self::send_away_misplaced`] was called.
    pub(crate) fn is_misplaced(&self) -> bool {
        self.misplaced.load(Ordering::Relaxed)
    }

    /// Waits until [`Self::send_away`] is called.
    pub(crate) async fn is_sent_away(&self) {
        self.sent_away.notified().await;
    }

    /// Whether someone ended it.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Sets the task that [`Self::end`] wakes.
    pub(crate) fn remember(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }
}
