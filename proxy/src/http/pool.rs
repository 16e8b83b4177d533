//! Connections to an endpoint that wait for the next request.
//!
//! Each worker has its own pool at each endpoint: a request finds it by an index, and no worker waits for another. The
//! connection used last is used first, so what a quiet time leaves unused grows old at the bottom and is closed before
//! the endpoint would close it. Before that it is laid by: what remains is the socket, without the 16 KiB of buffers that
//! a connection in use has. A proxy whose callers use thousands of Services would hold little else.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    socket::Socket,
    upstream::{H1, H2, H2Stream},
};
use crate::{
    clock::Clock,
    connect::{ConnectError, connect},
    listener::Worker,
    state::{Endpoint, Shared},
};

/// Time after which an unused connection is closed: less than the 5 s after which many servers do.
const UNUSED: Duration = Duration::from_millis(3_900);

/// Time after which an unused connection gives up its buffers: busy connections are never without them, and who comes
/// later pays about a microsecond to have new ones.
const COLD: Duration = Duration::from_millis(400);

/// Unused connections that one worker keeps with their buffers, to all endpoints together.
const WARM: usize = 256;

/// Unused connections that one worker keeps to one endpoint.
const KEPT: usize = 256;

/// Connections of HTTP/2 that one worker opens to one endpoint.
const H2_CONNECTIONS: usize = 4;

/// Streams on every connection of HTTP/2 before another one is opened.
const H2_BUSY: u32 = 24;

/// The pools of one endpoint, one for each worker.
pub(crate) struct Pools(Box<[OnceLock<Box<Pool>>]>);

#[derive(Default)]
struct Pool {
    kept: Mutex<Kept>,
    /// Held while a connection of HTTP/2 is being made, so that a burst makes one and not a hundred.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    h1: Vec<(Unused, u32)>,
    h2: Vec<(H2, u32)>,
    /// The worker's sweep knows of this pool.
    listed: bool,
}

/// A connection of HTTP/1.1 that waits.
enum Unused {
    /// As it was left.
    Warm(Box<H1>, #[expect(dead_code, reason = "held for its end")] Room),
    /// Laid by.
    Cold(Socket),
}

/// How many unused connections of a worker have their buffers.
#[derive(Default)]
pub(crate) struct Warm(Arc<AtomicUsize>);

/// The place of one of them, until it is dropped.
struct Room(Arc<AtomicUsize>);

impl Warm {
    fn enter(&self) -> Option<Room> {
        let entered = self.0.fetch_add(1, Ordering::Relaxed) < WARM;
        // Leaves again if there was none.
        let room = Room(self.0.clone());
        entered.then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pools {
    /// Empty pools for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| OnceLock::new()).collect())
    }

    fn of(&self, worker: usize) -> &Pool {
        self.0[worker].get_or_init(Box::default)
    }

    /// The connection of HTTP/1.1 that was used last, if one is unused.
    pub(crate) async fn take(&self, worker: usize) -> Option<Box<H1>> {
        let (unused, _) = self.0[worker].get()?.kept.lock().h1.pop()?;
        match unused {
            Unused::Warm(connection, _) => Some(connection),
            Unused::Cold(socket) => Box::pin(H1::again(socket)).await.ok(),
        }
    }

    /// Keeps a connection for later.
    pub(crate) fn put(&self, worker: &Worker, connection: Box<H1>, of: &Arc<Endpoint>) {
        let unused = match worker.warm.enter() {
            Some(room) => Unused::Warm(connection, room),
            None => match connection.lay_by() {
                Some(socket) => Unused::Cold(socket),
                None => return,
            },
        };
        let mut kept = self.of(worker.index).kept.lock();
        // Asked under the lock: whoever retires an endpoint says so before it clears the pool.
        if of.is_gone() || kept.h1.len() >= KEPT {
            drop(kept);
            return;
        }
        kept.h1.push((unused, worker.shared.clock.coarse()));
        if !std::mem::replace(&mut kept.listed, true) {
            drop(kept);
            worker.pooled.lock().push(of.clone());
        }
    }

    /// Closes everything that is unused.
    pub(crate) fn clear(&self) {
        for pool in self.0.iter().filter_map(OnceLock::get) {
            let (h1, h2) = {
                let mut kept = pool.kept.lock();
                (std::mem::take(&mut kept.h1), std::mem::take(&mut kept.h2))
            };
            drop((h1, h2));
        }
    }

    /// Closes what was unused for too long; returns whether anything is left.
    fn expire(&self, worker: usize, clock: &Clock) -> bool {
        let Some(pool) = self.0[worker].get() else { return false };
        let mut kept = pool.kept.lock();
        let now = clock.coarse();
        let fresh = kept.h1.partition_point(|(_, since)| clock.since(*since) >= UNUSED);
        let old: Vec<_> = kept.h1.drain(..fresh).collect();
        let cold = kept.h1.partition_point(|(_, since)| clock.since(*since) >= COLD);
        lay_by(&mut kept.h1, cold);
        kept.h2.retain_mut(|(connection, used)| {
            if connection.streams() > 0 {
                *used = now;
            }
            !connection.is_closed() && clock.since(*used) < UNUSED
        });
        let left = !kept.h1.is_empty() || !kept.h2.is_empty();
        kept.listed = left;
        drop(kept);
        drop(old);
        left
    }
}

/// Lays by the first `count` connections; what cannot be is closed.
fn lay_by(kept: &mut Vec<(Unused, u32)>, count: usize) {
    if kept[..count].iter().all(|(unused, _)| matches!(unused, Unused::Cold(_))) {
        return;
    }
    let later = kept.split_off(count);
    let cold = |(unused, since)| match unused {
        Unused::Warm(connection, _) => Some((Unused::Cold(connection.lay_by()?), since)),
        Unused::Cold(_) => Some((unused, since)),
    };
    *kept = std::mem::take(kept).into_iter().filter_map(cold).chain(later).collect();
}

/// Closes connections of `worker` that were unused for too long.
pub(crate) fn sweep(worker: &Worker) {
    worker.pooled.lock().retain(|endpoint| endpoint.pools.expire(worker.index, &worker.shared.clock));
}

/// A new connection of HTTP/1.1.
pub(crate) async fn h1_new(shared: &Shared, to: SocketAddr, timeout: Duration) -> Result<Box<H1>, ConnectError> {
    let stream = connect(shared, to, timeout).await?;
    H1::new(stream).await.map_err(|error| ConnectError::handshake(to, &error))
}

/// A place on a connection of HTTP/2 to `endpoint`. Opens another connection when all are busy.
pub(crate) async fn h2(
    worker: &Arc<Worker>,
    endpoint: &Arc<Endpoint>,
    timeout: Duration,
) -> Result<H2Stream, ConnectError> {
    let pool = endpoint.pools.of(worker.index);
    loop {
        let (least, count) = least_busy(pool, worker.shared.clock.coarse());
        if let Some(connection) = least {
            if connection.streams() >= H2_BUSY && count < H2_CONNECTIONS {
                open_another(worker, endpoint, timeout);
            }
            return Ok(connection.stream(true));
        }
        let Ok(_alone) = pool.connecting.try_lock() else {
            // Somebody is at it: wait for them and look again.
            drop(pool.connecting.lock().await);
            continue;
        };
        return Ok(h2_new(worker, endpoint, timeout).await?.stream(false));
    }
}

fn least_busy(pool: &Pool, now: u32) -> (Option<H2>, usize) {
    let mut kept = pool.kept.lock();
    kept.h2.retain(|(connection, _)| !connection.is_closed());
    let count = kept.h2.len();
    let least = kept.h2.iter_mut().min_by_key(|(connection, _)| connection.streams());
    let least = least.map(|(connection, used)| {
        *used = now;
        connection.clone()
    });
    (least, count)
}

fn open_another(worker: &Arc<Worker>, endpoint: &Arc<Endpoint>, timeout: Duration) {
    let (worker, endpoint) = (worker.clone(), endpoint.clone());
    tokio::spawn(async move {
        let pool = endpoint.pools.of(worker.index);
        let Ok(_alone) = pool.connecting.try_lock() else { return };
        // The requests in hand have a connection; that no more can be had is not their failure.
        let _ = h2_new(&worker, &endpoint, timeout).await;
    });
}

async fn h2_new(worker: &Worker, endpoint: &Arc<Endpoint>, timeout: Duration) -> Result<H2, ConnectError> {
    let stream = connect(&worker.shared, endpoint.address, timeout).await?;
    let connection = H2::new(stream).await.map_err(|error| ConnectError::handshake(endpoint.address, &error))?;
    let mut kept = endpoint.pools.of(worker.index).kept.lock();
    if !endpoint.is_gone() {
        kept.h2.push((connection.clone(), worker.shared.clock.coarse()));
        if !std::mem::replace(&mut kept.listed, true) {
            drop(kept);
            worker.pooled.lock().push(endpoint.clone());
        }
    }
    Ok(connection)
}

#[cfg(test)]
mod tests;
