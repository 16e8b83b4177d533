//! Addresses kept for their TTL, as clients keep them that the mesh has to be patient with.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;

use super::plan::{Names, Target};
use crate::resolve::{Found, LookupError, Resolver, library};

/// The addresses of the names of one plan.
pub(crate) struct Cache {
    resolver: Arc<Resolver>,
    names: Names,
    /// By host, with the time until which they hold. One lookup at a time: the others wait for what it finds.
    known: Mutex<HashMap<String, (Instant, Found)>>,
    turn: AtomicUsize,
}

impl Cache {
    pub(crate) fn new(resolver: Arc<Resolver>, names: Names) -> Self {
        Self { resolver, names, known: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// An address for `target`, each of a name in turn, and how many queries had to be sent again for it.
    pub(crate) async fn address(&self, target: &Target) -> Result<(SocketAddr, u32), LookupError> {
        let found = match self.names {
            Names::Kept => self.kept(&target.host).await?,
            Names::Fresh => self.resolver.lookup(&target.host).await?,
            Names::Library => library(&target.host).await?,
        };
        // One family: where there is IPv4, whoever has no IPv6 must not be sent there.
        let first: Vec<IpAddr> = match found.addresses.first() {
            Some(first) => found.addresses.iter().copied().filter(|one| one.is_ipv4() == first.is_ipv4()).collect(),
            None => return Err(LookupError::NoAddress),
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % first.len();
        let address = first.get(turn).ok_or(LookupError::NoAddress)?;
        Ok((SocketAddr::new(*address, target.port), found.resent))
    }

    async fn kept(&self, host: &str) -> Result<Found, LookupError> {
        let mut known = self.known.lock().await;
        if let Some((until, found)) = known.get(host)
            && *until > Instant::now()
        {
            return Ok(found.clone());
        }
        let found = self.resolver.lookup(host).await?;
        if let Some(until) = Instant::now().checked_add(found.ttl) {
            known.insert(host.to_owned(), (until, found.clone()));
        }
        Ok(found)
    }
}
