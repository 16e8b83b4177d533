//! The authority of the discovery stream: whose certificates dns and proxies believe, and those that replicas serve with.
//!
//! The leader keeps a [`Book`] of authorities in a Secret of the mesh's namespace and publishes their certificates in a
//! ConfigMap that dns and proxies mount. Every replica reads the book and signs for itself, for a day at most, with a
//! key that never leaves its memory. Both change without a restart: an authority signs nothing before it has been
//! published for [`CaLifetimes::spread`], and is believed until nothing that it signed can be in use.
//!
//! If asked to, the leader also keeps a certificate for DNS over TLS in a Secret that dns mounts, signed by the same
//! authorities.
//!
//! [`plan`] decides, [`mint`] makes, [`keep()`] does it.

mod book;
mod keep;
mod mint;
mod plan;

use std::time::Duration;

pub use self::{
    book::{Authority, Book, Bundle},
    keep::{DnsCertificate, Options, keep},
    mint::MintError,
};

/// How long things are valid, and how long a change takes to reach everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaLifetimes {
    /// Life of an authority.
    pub authority: Duration,
    /// A new authority is made when the newest has less than this left.
    pub renew_before: Duration,
    /// Life of a replica's certificate, which is replaced at half of it.
    pub serving: Duration,
    /// Life of the certificate of DNS over TLS, which is replaced at half of it; zero without one.
    pub dns: Duration,
    /// Longest time that a published certificate takes to be in every subscriber's file. Kubelets need a minute or two;
    /// one that is cut off from the API server for longer has to come back before its pods can open new streams.
    pub spread: Duration,
    /// How often the Secret is looked at once there is a certificate to serve with.
    pub look: Duration,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Default for CaLifetimes {
    fn default() -> Self {
        Self {
            authority: 365 * 24 * HOUR,
            renew_before: 120 * 24 * HOUR,
            serving: 24 * HOUR,
            dns: Duration::ZERO,
            spread: HOUR,
            look: Duration::from_secs(10),
        }
    }
}

impl CaLifetimes {
    /// With a certificate for DNS over TLS. Its clients verify it with copies of the authorities' certificates, which
    /// people and programs such as CoreDNS renew in weeks rather than minutes. The certificate has to outlast an outage
    /// of the controllers.
    pub fn with_dns() -> Self {
        Self { dns: 30 * 24 * HOUR, spread: 30 * 24 * HOUR, ..Self::default() }
    }

    /// How long an authority is still believed once another signs: as long as anything that it signed.
    fn afterwards(&self) -> Duration {
        self.serving.max(self.dns) + self.spread
    }
}
