//! With what certificate dns and proxies are served, and who is taken for one of them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use kube::Client;
use maesh_controller::{
    admission::{Accounts, Admission},
    authority::{self, CaLifetimes, DnsCertificate, Options},
};
use maesh_discovery::{
    Server,
    auth::{Authenticate, NoAuthentication, SharedSecret},
    tls::{CertificateFiles, ServerTls},
};
use tokio::{net::TcpListener, sync::watch};

use super::duties::Duties;
use crate::args::ControllerArgs;

/// How often certificate files are looked at.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// What comes from the cluster; without it, the flags name files, a secret, or nobody but loopback.
#[derive(Default)]
pub struct Trust {
    tls: Option<watch::Receiver<Option<ServerTls>>>,
    admission: Option<Arc<Admission>>,
}

impl Trust {
    /// Begins to keep the authority and to admit pods by their tokens, where the flags ask for it. The authority is the
    /// first of the leader's duties: without it nobody is told anything. Must be called within a runtime.
    pub fn in_cluster(&mut self, args: &ControllerArgs, client: &Client, duties: Option<&mut Duties>) {
        let namespace = args.mesh.namespace.clone();
        if let (Some(name), Some(duties)) = (args.trust.ca.clone(), duties) {
            let server = args.trust.server_name.clone();
            let dns = args.trust.dns_certificate_secret.clone().map(|secret| DnsCertificate {
                secret,
                service: args.dns_service.dns_service.clone(),
                cluster_domain: args.mesh.cluster_domain.clone(),
            });
            let terms = if dns.is_some() { CaLifetimes::with_dns() } else { CaLifetimes::default() };
            let options = Options { namespace: namespace.clone(), name, server, dns, terms };
            let (tls, served) = watch::channel(None);
            duties.add(authority::keep(client.clone(), options, duties.leadership(), tls));
            self.tls = Some(served);
        }
        if let (Some(dns), Some(proxy)) = (args.trust.dns_account.clone(), args.trust.proxy_account.clone()) {
            self.admission = Some(Admission::start(client.clone(), Accounts { namespace, dns, proxy }));
        }
    }

    /// Whether there is a certificate of the authority to serve with; `None` where none is needed of it.
    pub fn certified(&self) -> Option<watch::Receiver<bool>> {
        let mut tls = self.tls.clone()?;
        let (certified, receiver) = watch::channel(false);
        tokio::spawn(async move {
            let there = tls.wait_for(Option::is_some).await.is_ok();
            certified.send_replace(there);
            certified.closed().await;
        });
        Some(receiver)
    }

    /// Serves subscribers, once there is a certificate.
    pub async fn serve(&self, args: &ControllerArgs, server: &Server, listener: TcpListener) -> anyhow::Result<()> {
        let auth = self.auth(args)?;
        if let Some(mut tls) = self.tls.clone() {
            let found = tls.wait_for(Option::is_some).await.context("the authority is no longer kept")?.clone();
            return Ok(server.listen(listener, found.map(|tls| tls.config()), auth).await?);
        }
        let (Some(chain), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) else {
            return Ok(server.listen(listener, None, auth).await?);
        };
        let files = CertificateFiles { chain, key };
        let tls = files.load().context("--tls-cert, --tls-key")?;
        tokio::select! {
            ended = server.listen(listener, Some(tls.config()), auth) => Ok(ended?),
            () = files.keep_current(&tls, CERTIFICATES) => bail!("the certificate files are no longer looked at"),
        }
    }

    fn auth(&self, args: &ControllerArgs) -> anyhow::Result<Arc<dyn Authenticate>> {
        if let Some(admission) = &self.admission {
            return Ok(admission.clone());
        }
        Ok(match &args.secret_file {
            Some(path) => {
                Arc::new(SharedSecret::from_file(path).with_context(|| format!("--secret-file {}", path.display()))?)
            }
            None if args.insecure => Arc::new(NoAuthentication::insecure()),
            None => Arc::new(NoAuthentication::loopback()),
        })
    }
}
