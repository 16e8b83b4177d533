//! Does what was decided: reads and writes the Secret and the ConfigMap, and hands each replica its certificate.

mod dns;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::SelfSubjectReview,
        core::v1::{ConfigMap, Secret},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use maesh_discovery::tls::{Certificate, ServerTls, TlsError};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

pub use self::dns::DnsCertificate;
use super::{
    CaLifetimes,
    book::{Book, Bundle},
    mint::{self, MintError, Subject},
    plan::{self, Held, Step},
};
use crate::{
    api::ApiError,
    leader::{Leadership, NotLeader},
};

/// Where the certificates stand in the ConfigMap: what dns and proxies mount.
const CERTIFICATES: &str = "ca.crt";
/// Where the book stands in the Secret.
const BOOK: &str = "authorities.json";
/// Marks both objects as the mesh's.
const LABEL: &str = "maesh.containo.us/authority";
/// How often the Secret is looked at while there is nothing to serve with.
const HURRY: Duration = Duration::from_millis(300);
/// Longest time that one look may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Most steps in a row; a first start takes three.
const STEPS: usize = 8;

/// Where the authority is kept, and what for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The mesh's namespace.
    pub namespace: String,
    /// Name of the Secret, and of the ConfigMap.
    pub name: String,
    /// The name by which subscribers know the server.
    pub server: String,
    /// The certificate of DNS over TLS, if one is wanted.
    pub dns: Option<DnsCertificate>,
    /// How long things last.
    pub terms: CaLifetimes,
}

/// Why the authority could not be looked after; it is tried again.
#[derive(Debug, thiserror::Error)]
enum CaError {
    #[error("{0}; check the controller's rights on the Secret and the ConfigMap of its authority")]
    Api(#[from] kube::Error),
    #[error("{kind} {name} is there and is not the mesh's; rename or delete it, the mesh makes its own")]
    Foreign { kind: &'static str, name: String },
    #[error("Secret {secret} with the certificate of DNS over TLS: {source}")]
    Dns { secret: String, source: Box<Self> },
    #[error("no answer of the API server within {PATIENCE:?}")]
    Slow,
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error("the new certificate is of no use: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
}

/// Looks after the authority for as long as anybody holds a receiver of `tls`: as the leader keeps Secret and ConfigMap
/// as they should be, and as any replica keeps what is in `tls` valid. `tls` is told once, when there is a certificate;
/// from then on it changes in place.
pub async fn keep(client: Client, options: Options, leadership: Leadership, tls: watch::Sender<Option<ServerTls>>) {
    let mut leads = leadership.watch();
    let mut keeper = CaKeeper {
        secrets: Api::namespaced(client.clone(), &options.namespace),
        maps: Api::namespaced(client.clone(), &options.namespace),
        client,
        options,
        leadership,
        book: None,
        held: None,
        tls,
    };
    let mut said = None;
    loop {
        let looked = timeout(PATIENCE, keeper.look()).await.unwrap_or(Err(CaError::Slow));
        // With what is remembered where there was no answer: certificates do not wait for the API server.
        match looked.and_then(|()| keeper.serve()).or_else(|error| keeper.serve().and(Err(error))) {
            Ok(()) => said = None,
            Err(CaError::NotLeader(_)) => {}
            Err(error) => warn_once(&mut said, &error),
        }
        let pause = if keeper.held.is_some() { keeper.options.terms.look } else { HURRY };
        tokio::select! {
            () = sleep(pause) => {}
            changed = leads.changed() => if changed.is_err() { return },
            () = keeper.tls.closed() => return,
        }
    }
}

fn warn_once(said: &mut Option<String>, error: &CaError) {
    let text = error.to_string();
    if said.as_ref() != Some(&text) {
        tracing::warn!(error = text, "the CA or a certificate that it signs is not up to date; trying again");
        *said = Some(text);
    }
}

struct CaKeeper {
    client: Client,
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    options: Options,
    leadership: Leadership,
    /// As it was read last.
    book: Option<Book>,
    held: Option<Held>,
    tls: watch::Sender<Option<ServerTls>>,
}

impl CaKeeper {
    /// Reads the book; as the leader also takes every step that is due.
    async fn look(&mut self) -> Result<(), CaError> {
        for _ in 0..STEPS {
            let secret = self.secrets.get_opt(&self.options.name).await?;
            own("Secret", &self.options.name, secret.as_ref().map(|it| &it.metadata))?;
            let book = secret.as_ref().and_then(read);
            if let Some(book) = &book {
                self.book = Some(book.clone());
            }
            if !self.leadership.may_write() {
                return Ok(());
            }
            let map = self.maps.get_opt(&self.options.name).await?;
            own("ConfigMap", &self.options.name, map.as_ref().map(|it| &it.metadata))?;
            let published = map.as_ref().map(published);
            let now = Timestamp::now();
            match plan::step(book.as_ref(), published.as_ref(), now, &self.options.terms) {
                Step::Rest => return self.keep_dns_certificate(now).await,
                Step::Publish(bundle) => self.publish(map, &bundle).await?,
                Step::Write(book) => self.write(secret, &book).await?,
                Step::Create { keep, signs_from } => {
                    let name = format!("maesh discovery {now:.0} {:08x}", rand::random::<u32>());
                    tracing::info!(authority = name, "a new authority for the discovery stream");
                    let new = mint::authority(&name, now, signs_from, &self.options.terms)?;
                    self.write(secret, &Book(keep.into_iter().chain([new]).collect())).await?;
                }
            }
        }
        Ok(())
    }

    /// Has a certificate signed where one is due.
    fn serve(&mut self) -> Result<(), CaError> {
        let now = Timestamp::now();
        let Some(authority) = self.book.as_ref().and_then(|book| plan::sign(book, self.held.as_ref(), now)) else {
            return Ok(());
        };
        let Options { server, terms, .. } = &self.options;
        let subject = Subject { title: "maesh controller", names: vec![server.clone()], life: terms.serving };
        let served = mint::serving(authority, subject, rand::random(), now)?;
        let certificate = Certificate::parse(served.chain.as_bytes(), served.key.as_bytes())?;
        let known = self.tls.borrow().clone();
        match known {
            Some(tls) => tls.replace(certificate),
            None => drop(self.tls.send_replace(Some(ServerTls::new(certificate)?))),
        }
        tracing::info!(authority = authority.name, until = %served.until, "serving with a new certificate");
        self.held = Some(Held { authority: authority.certificate.clone(), issued: now, until: served.until });
        Ok(())
    }

    async fn write(&self, secret: Option<Secret>, book: &Book) -> Result<(), CaError> {
        let text = serde_json::to_vec(book).unwrap_or_default();
        self.write_secret(&self.options.name, None, secret, [(BOOK, text)].into()).await
    }

    /// Writes `data` over a Secret as it was read: whoever was faster is not overwritten.
    async fn write_secret(
        &self,
        name: &str,
        kind: Option<&str>,
        secret: Option<Secret>,
        data: BTreeMap<&str, Vec<u8>>,
    ) -> Result<(), CaError> {
        let data = Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect());
        let parameters = PostParams::default();
        let written = match secret {
            Some(secret) => {
                let wanted = Secret { data, ..secret };
                self.leadership.write(self.secrets.replace(name, &parameters, &wanted)).await?
            }
            None => {
                let (metadata, type_) = (self.metadata(name).await, kind.map(str::to_owned));
                let wanted = Secret { metadata, type_, data, ..Secret::default() };
                self.leadership.write(self.secrets.create(&parameters, &wanted)).await?
            }
        };
        unless_changed(written)
    }

    async fn publish(&self, map: Option<ConfigMap>, bundle: &Bundle) -> Result<(), CaError> {
        let data = Some(BTreeMap::from([(CERTIFICATES.to_owned(), bundle.to_pem())]));
        let parameters = PostParams::default();
        let written = match map {
            Some(map) => {
                let wanted = ConfigMap { data, ..map };
                self.leadership.write(self.maps.replace(&self.options.name, &parameters, &wanted)).await?
            }
            None => {
                let wanted =
                    ConfigMap { metadata: self.metadata(&self.options.name).await, data, ..ConfigMap::default() };
                self.leadership.write(self.maps.create(&parameters, &wanted)).await?
            }
        };
        unless_changed(written)
    }

    /// Metadata of a new object. It goes with the ServiceAccount that this replica runs as, which is the chart's: so an
    /// uninstall takes it along, also where no controller runs any more.
    async fn metadata(&self, name: &str) -> ObjectMeta {
        let labels = [(LABEL, "true"), ("app.kubernetes.io/part-of", "maesh")];
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: self.owner().await.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// The ServiceAccount that this replica runs as, if it is one of the mesh's namespace.
    async fn owner(&self) -> Option<OwnerReference> {
        let reviews = Api::<SelfSubjectReview>::all(self.client.clone());
        let answered = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
        let user = answered.ok()?.status?.user_info?;
        let account = user.username?;
        let account = account.strip_prefix("system:serviceaccount:")?.strip_prefix(&self.options.namespace)?;
        Some(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ServiceAccount".to_owned(),
            name: account.strip_prefix(':')?.to_owned(),
            uid: user.uid?,
            ..OwnerReference::default()
        })
    }
}

/// Fails if an object is there and is somebody else's.
fn own(kind: &'static str, name: &str, object: Option<&ObjectMeta>) -> Result<(), CaError> {
    let ours = object.is_none_or(|it| it.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL)));
    if ours { Ok(()) } else { Err(CaError::Foreign { kind, name: name.to_owned() }) }
}

/// Where another was faster, it is looked at again.
fn unless_changed<T>(written: Result<T, kube::Error>) -> Result<(), CaError> {
    match written {
        Err(error) if ApiError::Conflict.is(&error) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// The book in a Secret; an illegible one counts as lost.
fn read(secret: &Secret) -> Option<Book> {
    let text = secret.data.as_ref()?.get(BOOK)?;
    serde_json::from_slice(&text.0).ok()
}

fn published(map: &ConfigMap) -> Bundle {
    map.data.as_ref().and_then(|data| data.get(CERTIFICATES)).map(|text| Bundle::parse(text)).unwrap_or_default()
}
