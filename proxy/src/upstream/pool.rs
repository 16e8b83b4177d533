//! Connections to an endpoint that wait for the next request.
//!
//! Each worker has its own pool at each endpoint: a request finds it by an index, and no worker waits for another. The
//! connection of HTTP/1.1 used last is used first, so what a quiet time leaves unused grows old at the bottom and is closed
//! before the endpoint would close it. What waits is a socket without buffers: a proxy whose callers use thousands of
//! Services holds little else.
//!
//! Connections of HTTP/2 are shared. One attempt at a time makes another one, and everybody who waits for it hears how it
//! went.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::{
    Dial, Peer, WorkerUpstream, h1, h2,
    link::Link,
    tls::{self, Offer, Tls, is_same},
};
use crate::{
    connect::{self, ConnectError},
    socket::Socket,
};

/// Time after which an unused connection is closed: less than the 5 s after which many servers do.
const UNUSED: Duration = Duration::from_millis(3_900);

/// Unused connections that one worker keeps to one endpoint.
const KEPT: usize = 256;

/// Connections of HTTP/2 that one worker opens to one endpoint, as long as they have room for all requests.
const H2_CONNECTIONS: usize = 4;

/// Requests on each of them before another one is opened: as many as most servers allow. More connections with fewer requests
/// each are more system calls.
const H2_BUSY: u32 = 100;

/// Connections of HTTP/2 that one worker opens to one endpoint that allows few requests on each.
const H2_MOST: usize = 256;

/// Connections of HTTP/2 that may end right after they were made, before a request gives up.
const STILLBORN: u32 = 2;

/// The pools of one endpoint, one for each worker. Made when it is first connected to: of the many endpoints of a mesh,
/// most proxies call few.
#[derive(Default)]
pub(crate) struct Pools(OnceLock<Box<[OnceLock<Box<Pool>>]>>);

#[derive(Default)]
struct Pool {
    kept: Mutex<IdleConnections>,
    /// Told when a request on a connection of HTTP/2 has ended.
    freed: Arc<Notify>,
}

#[derive(Default)]
struct IdleConnections {
    /// Unused ones, with the coarse time of their last use.
    h1: Vec<(Box<h1::PooledConnection>, u32)>,
    h2: Vec<(h2::SharedConnection, u32)>,
    /// The attempts under way to make another connection of HTTP/2: one for each identity, so hardly ever more than one.
    connecting: Vec<ConnectAttempt>,
    /// The worker's sweep knows of this pool.
    listed: bool,
}

/// How an attempt to connect went, once it is over.
type ConnectOutcome = watch::Receiver<Option<Result<(), ConnectError>>>;

/// An attempt to make a connection of HTTP/2.
struct ConnectAttempt {
    /// Whom the endpoint has to be.
    tls: Option<Arc<Tls>>,
    outcome: ConnectOutcome,
}

impl IdleConnections {
    /// The attempt under way for this identity.
    fn attempt(&self, tls: Option<&Arc<Tls>>) -> Option<&ConnectOutcome> {
        self.connecting.iter().find(|attempt| is_same(attempt.tls.as_ref(), tls)).map(|attempt| &attempt.outcome)
    }
}

/// Where a connection of HTTP/1.1 belongs when nobody uses it.
pub(super) struct PoolSlot {
    peer: Arc<Peer>,
    local: Arc<WorkerUpstream>,
}

impl PoolSlot {
    /// The pool of `local` at `peer`.
    pub(super) fn new(peer: &Arc<Peer>, local: &Arc<WorkerUpstream>) -> Self {
        Self { peer: peer.clone(), local: local.clone() }
    }

    /// Keeps a parked connection for the next request.
    pub(super) fn put(&self, connection: Box<h1::PooledConnection>) {
        let mut kept = self.peer.pools.of(&self.local).kept.lock();
        // Asked under the lock: whoever retires a peer says so before it clears the pool.
        if self.peer.is_retired() || kept.h1.len() >= KEPT {
            return;
        }
        kept.h1.push((connection, self.local.clock.coarse()));
        list(kept, &self.peer, &self.local);
    }
}

/// Lets the sweep of `local` know of the pool behind `kept`, which is unlocked first: the sweep locks its list before it
/// locks a pool.
fn list(mut kept: MutexGuard<'_, IdleConnections>, peer: &Arc<Peer>, local: &WorkerUpstream) {
    let listed = std::mem::replace(&mut kept.listed, true);
    drop(kept);
    if !listed {
        local.pooled.lock().push(peer.clone());
    }
}

impl Pools {
    /// The pool of this worker.
    fn of(&self, worker: &WorkerUpstream) -> &Pool {
        let of_all = self.0.get_or_init(|| (0..worker.workers).map(|_| OnceLock::new()).collect());
        of_all[worker.index].get_or_init(Box::default)
    }

    /// The pool of this worker, if it has connected.
    fn made(&self, worker: &WorkerUpstream) -> Option<&Pool> {
        Some(self.0.get()?[worker.index].get()?)
    }

    /// Those that were made.
    fn all(&self) -> impl Iterator<Item = &Pool> {
        self.0.get().into_iter().flatten().filter_map(|pool| Some(&**pool.get()?))
    }

    /// The connection of HTTP/1.1 that was used last, of those that are still open. Those that are not as `tls` asks are
    /// closed: the policy has changed.
    pub(super) fn take(&self, local: &WorkerUpstream, tls: Option<&Arc<Tls>>) -> Option<Box<h1::PooledConnection>> {
        let pool = self.made(local)?;
        loop {
            let (connection, since) = pool.kept.lock().h1.pop()?;
            // Within a tick of the clock, the event loop has hardly had the time to miss anything.
            if connection.is_of(tls) && !connection.is_dead(since != local.clock.coarse()) {
                return Some(connection);
            }
        }
    }

    /// Connections that are kept: unused ones of HTTP/1.1, and all of HTTP/2.
    pub(super) fn kept(&self) -> (usize, usize) {
        self.all().fold((0, 0), |(h1, h2), pool| {
            let kept = pool.kept.lock();
            (h1 + kept.h1.len(), h2 + kept.h2.len())
        })
    }

    /// Closes everything that is unused.
    pub(super) fn clear(&self) {
        for pool in self.all() {
            let (h1, h2) = {
                let mut kept = pool.kept.lock();
                (std::mem::take(&mut kept.h1), std::mem::take(&mut kept.h2))
            };
            drop((h1, h2));
        }
    }

    /// Closes what was unused for too long, or was closed by the endpoint; returns whether anything is left.
    pub(super) fn expire(&self, local: &WorkerUpstream) -> bool {
        let Some(pool) = self.made(local) else { return false };
        let clock = &local.clock;
        let mut kept = pool.kept.lock();
        let now = clock.coarse();
        let fresh = kept.h1.partition_point(|(_, since)| clock.since(*since) >= UNUSED);
        let mut old: Vec<_> = kept.h1.drain(..fresh).collect();
        // A connection that the endpoint has closed only costs descriptors.
        old.extend(kept.h1.extract_if(.., |(connection, _)| connection.is_dead(false)));
        kept.h2.retain_mut(|(connection, used)| {
            if connection.streams() > 0 {
                *used = now;
            }
            !connection.is_spent() && clock.since(*used) < UNUSED
        });
        let left = !kept.h1.is_empty() || !kept.h2.is_empty();
        kept.listed = left;
        drop(kept);
        drop(old);
        left
    }
}

/// A new connection of HTTP/1.1.
pub(super) async fn connect_h1(
    local: &WorkerUpstream,
    peer: &Peer,
    dial: Dial<'_>,
) -> Result<Box<h1::PooledConnection>, ConnectError> {
    Ok(h1::PooledConnection::new(connect(local, peer, dial.within, dial.tls, Offer::Http1).await?))
}

/// A new connection. Over TLS, the endpoint chooses among what is in `offer`.
async fn connect(
    local: &WorkerUpstream,
    peer: &Peer,
    within: Duration,
    tls: Option<&Arc<Tls>>,
    offer: Offer,
) -> Result<Link, ConnectError> {
    let Some(tls) = tls else {
        let stream = local.connector.connect(peer.address, within).await?;
        connect::limit_unacknowledged(&stream);
        return Ok(Link::Plain(Socket::new(stream)));
    };
    Ok(Link::Tls(tls::connect(local, peer, within, tls, offer).await?))
}

/// Where a request over HTTP/2 finds itself.
enum StreamSlot {
    /// On a connection.
    Here(h2::RequestStream),
    /// Another connection is being made.
    Connecting(ConnectOutcome),
    /// No connection has room, and no more may be made.
    Full,
}

/// A place on a connection of HTTP/2 to `peer` that is there already and has room.
pub(super) fn free_h2(local: &Arc<WorkerUpstream>, peer: &Arc<Peer>, dial: Dial<'_>) -> Option<h2::RequestStream> {
    match place(peer.pools.of(local), local, peer, dial, true).0 {
        StreamSlot::Here(stream) => Some(stream),
        StreamSlot::Connecting(_) | StreamSlot::Full => None,
    }
}

/// A place on a connection of HTTP/2 to `peer`, where [`free_h2`] found none.
///
/// Opens another connection when none has room, and ahead of need when all are busy. Waits for room no longer than a connection
/// may take.
pub(super) async fn stream_h2(
    local: &Arc<WorkerUpstream>,
    peer: &Arc<Peer>,
    dial: Dial<'_>,
) -> Result<h2::RequestStream, ConnectError> {
    let pool = peer.pools.of(local);
    let deadline = Instant::now() + dial.within;
    let (mut waited, mut stillborn) = (false, 0);
    loop {
        // Before the look, so that what is freed in between is not missed.
        let freed = pool.freed.notified();
        let (place, count) = place(pool, local, peer, dial, !waited);
        match place {
            StreamSlot::Here(stream) => return Ok(stream),
            StreamSlot::Connecting(mut outcome) => {
                if waited && count == 0 {
                    stillborn += 1;
                }
                if waited && Instant::now() >= deadline {
                    return Err(ConnectError::Busy { to: peer.address });
                }
                if stillborn >= STILLBORN {
                    let source = Arc::new(io::ErrorKind::ConnectionAborted.into());
                    return Err(ConnectError::Failed { to: peer.address, source });
                }
                waited = true;
                match outcome.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Err(error))) => return Err(error.clone()),
                    Ok(_) => {}
                    Err(_) => {
                        let source = Arc::new(io::ErrorKind::ConnectionAborted.into());
                        return Err(ConnectError::Failed { to: peer.address, source });
                    }
                }
            }
            StreamSlot::Full => {
                if timeout_at(deadline, freed).await.is_err() {
                    return Err(ConnectError::Busy { to: peer.address });
                }
            }
        }
    }
}

/// Looks for room, and starts to connect where there is none or little. Also says how many connections there are.
fn place(
    pool: &Pool,
    local: &Arc<WorkerUpstream>,
    peer: &Arc<Peer>,
    dial: Dial<'_>,
    reused: bool,
) -> (StreamSlot, usize) {
    let mut kept = pool.kept.lock();
    kept.h2.retain(|(connection, _)| !connection.is_spent());
    // Those of another identity may be wanted by requests that began before the policy changed, and else grow old.
    let ours = |connection: &h2::SharedConnection| connection.is_of(dial.tls);
    let count = kept.h2.iter().filter(|(connection, _)| ours(connection)).count();
    let now = local.clock.coarse();
    let with_room = kept.h2.iter_mut().filter(|(connection, _)| ours(connection) && connection.has_room());
    let stream = with_room.min_by_key(|(connection, _)| connection.streams()).map(|(connection, used)| {
        *used = now;
        (connection.streams() >= H2_BUSY, connection.stream(reused))
    });
    match stream {
        Some((busy, stream)) => {
            if busy && count < H2_CONNECTIONS && kept.attempt(dial.tls).is_none() {
                connect_h2(&mut kept, pool, local, peer, dial);
            }
            (StreamSlot::Here(stream), count)
        }
        // One that allows nothing at the moment is not made to allow more by further connections.
        None if count >= H2_MOST || kept.h2.iter().any(|(connection, _)| ours(connection) && connection.is_shut()) => {
            (StreamSlot::Full, count)
        }
        None => {
            let outcome = match kept.attempt(dial.tls) {
                Some(outcome) => outcome.clone(),
                None => connect_h2(&mut kept, pool, local, peer, dial),
            };
            (StreamSlot::Connecting(outcome), count)
        }
    }
}

/// Starts to make a connection of HTTP/2. The attempt has a task of its own, because it belongs to all who wait for it.
fn connect_h2(
    kept: &mut IdleConnections,
    pool: &Pool,
    local: &Arc<WorkerUpstream>,
    peer: &Arc<Peer>,
    dial: Dial<'_>,
) -> ConnectOutcome {
    let (result, outcome) = watch::channel(None);
    kept.connecting.push(ConnectAttempt { tls: dial.tls.cloned(), outcome: outcome.clone() });
    let own = outcome.clone();
    let (local, peer, freed) = (local.clone(), peer.clone(), pool.freed.clone());
    let (within, tls) = (dial.within, dial.tls.cloned());
    tokio::spawn(async move {
        let made = open_h2(&local, &peer, within, tls.as_ref(), freed).await;
        let mut kept = peer.pools.of(&local).kept.lock();
        kept.connecting.retain(|attempt| !attempt.outcome.same_channel(&own));
        let made = match made {
            Ok(connection) => {
                kept.h2.push((connection, local.clock.coarse()));
                list(kept, &peer, &local);
                Ok(())
            }
            Err(error) => {
                drop(kept);
                Err(error)
            }
        };
        result.send_replace(Some(made));
    });
    outcome
}

/// A new connection of HTTP/2, at the latest until `within` has passed. One on which the endpoint chose HTTP/1.1 is kept for a
/// request of that.
async fn open_h2(
    local: &Arc<WorkerUpstream>,
    peer: &Arc<Peer>,
    within: Duration,
    tls: Option<&Arc<Tls>>,
    freed: Arc<Notify>,
) -> Result<h2::SharedConnection, ConnectError> {
    let (to, deadline) = (peer.address, Instant::now() + within);
    let link = connect(local, peer, within, tls, Offer::Http2).await?;
    if !link.may_carry_http2() {
        PoolSlot::new(peer, local).put(h1::PooledConnection::new(link));
        return Err(ConnectError::OtherProtocol { to, wanted: "HTTP/2" });
    }
    match timeout_at(deadline, h2::SharedConnection::begin(link, freed, &local.clock)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(ConnectError::handshake(to, &error)),
        Err(_) => Err(ConnectError::TimedOut { to, within }),
    }
}

#[cfg(test)]
mod tests;
