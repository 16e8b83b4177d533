//! The controller: sources, serving, and what the leader writes.
//!
//! A [`source`] (the Kubernetes API, or a folder of manifests) delivers objects to the compiler (`maesh-compiler`);
//! [`serve`] drives the two and hands the result to the discovery server. One replica, the [`leader`], keeps what the
//! mesh owns in the cluster ([`duties`]). [`admission`] decides who may subscribe, [`authority`] issues the certificate.

pub mod admission;
pub mod api;
pub mod authority;
pub mod duties;
pub mod leader;
pub mod serve;
pub mod source;
