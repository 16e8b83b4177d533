//! Policies: what may change the fate of a request besides its route. One file each: its model, its text form where the
//! model has one, and its wire form.
//!
//! [`CalledPolicy`] holds those of the Service that was called, [`BackendPolicy`] those of the backend that was chosen. The
//! two Services differ where a route or split leads elsewhere.

mod backend;
mod balance;
pub mod breaker;
mod called;
mod eject;
mod fault;
mod field;
mod hedge;
mod mirror;
mod percent;
mod rate_limit;
mod retry;
mod tls;

use serde::Serialize;

pub use self::{
    backend::{BackendPolicy, Queue, Scheme},
    balance::{Balance, STICKY_COOKIE},
    called::CalledPolicy,
    eject::Eject,
    fault::{BadFault, Fault, FaultAbort, FaultDelay},
    field::BadFieldName,
    hedge::{BadHedge, Hedge},
    mirror::Mirror,
    percent::{BadPercent, Percent},
    rate_limit::{RateLimit, RateLimitBy},
    retry::{BadRetry, GrpcCode, MOST_ATTEMPTS, Retry, RetryBudget, RetryCondition, RetryOn},
    tls::{EndpointTls, TlsRoots},
};
use crate::ServiceName;

/// A port of a Service that a policy sends requests to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ServiceRef {
    /// The Service.
    pub service: ServiceName,
    /// Its port number.
    pub port: u16,
}

#[cfg(test)]
fn arbitrary_service_ref() -> impl proptest::strategy::Strategy<Value = ServiceRef> {
    use proptest::prelude::*;
    ("[a-z]{1,5}", "[a-z]{1,5}", any::<u16>())
        .prop_map(|(namespace, name, port)| ServiceRef { service: ServiceName::new(namespace, name), port })
}

#[cfg(test)]
pub(crate) mod arbitrary {
    //! Any policies there can be.
    pub(crate) use super::{backend::arbitrary as backend, called::arbitrary as called};
}
