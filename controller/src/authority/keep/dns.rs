//! The certificate of DNS over TLS, in a Secret of type `kubernetes.io/tls` that dns mounts.
//!
//! Whether it has to be replaced is read from the certificate itself: whether a client that trusts one of the authorities
//! accepts it for each name. So one that somebody damaged or replaced is repaired too.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::Api;
use maesh_discovery::tls::Certificate;

use super::{
    super::{
        book::Book,
        mint::{self, Subject},
        plan::{self, Held},
    },
    CaError, CaKeeper, own,
};

const TYPE: &str = "kubernetes.io/tls";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Where the certificate of DNS over TLS is kept, and for whom.
#[derive(Clone, Debug)]
pub struct DnsCertificate {
    /// Name of the Secret in the mesh's namespace.
    pub secret: String,
    /// Name of dns's Service there.
    pub service: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
}

impl CaKeeper {
    /// Has the certificate signed anew where that is due. For the leader, with a book that is published.
    pub(super) async fn keep_dns_certificate(&self, now: Timestamp) -> Result<(), CaError> {
        let (Some(dns), Some(book)) = (&self.options.dns, &self.book) else { return Ok(()) };
        self.sign_dns_certificate(dns, book, now).await.map_err(|error| match error {
            CaError::NotLeader(_) => error,
            other => CaError::Dns { secret: dns.secret.clone(), source: Box::new(other) },
        })
    }

    async fn sign_dns_certificate(&self, dns: &DnsCertificate, book: &Book, now: Timestamp) -> Result<(), CaError> {
        let secret = self.secrets.get_opt(&dns.secret).await?;
        own("Secret", &dns.secret, secret.as_ref().map(|it| &it.metadata))?;
        let namespace = &self.options.namespace;
        let service = Api::<Service>::namespaced(self.client.clone(), namespace).get_opt(&dns.service).await?;
        let names = names(dns, namespace, service.as_ref());
        let held = secret.as_ref().and_then(|secret| held(secret, book, &names, now));
        let Some(authority) = plan::sign_dns(book, held.as_ref(), now) else { return Ok(()) };
        tracing::info!(secret = dns.secret, authority = authority.name, ?names, "a new certificate for DNS over TLS");
        let subject = Subject { title: "maesh dns", names, life: self.options.terms.dns };
        let served = mint::serving(authority, subject, rand::random(), now)?;
        let data = [(CHAIN, served.chain.into_bytes()), (KEY, served.key.into_bytes())].into();
        self.write_secret(&dns.secret, Some(TYPE), secret, data).await
    }
}

/// The names by which dns is reached.
fn names(dns: &DnsCertificate, namespace: &str, service: Option<&Service>) -> Vec<String> {
    let DnsCertificate { service: name, cluster_domain, .. } = dns;
    let addresses = service.and_then(|it| it.spec.as_ref()?.cluster_ips.clone()).unwrap_or_default();
    let by_name = [
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.{cluster_domain}"),
        format!("{name}.{namespace}"),
        name.clone(),
    ];
    by_name.into_iter().chain(addresses.into_iter().filter(|it| it != "None")).collect()
}

/// The certificate in the Secret, if it has all names and is signed by one of the book.
fn held(secret: &Secret, book: &Book, names: &[String], now: Timestamp) -> Option<Held> {
    let data = secret.data.as_ref()?;
    let certificate = Certificate::parse(&data.get(CHAIN)?.0, &data.get(KEY)?.0).ok()?;
    let authority = book.0.iter().find(|it| certificate.is_signed_by(&it.certificate, now))?;
    let validity = certificate.validity();
    names.iter().all(|name| certificate.has_name(name)).then_some(Held {
        authority: authority.certificate.clone(),
        issued: validity.from()?,
        until: validity.until()?,
    })
}
