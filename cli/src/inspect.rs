//! Where a mesh that runs can be asked: a `maesh dev` by its admin address, or the pods of a cluster through its API
//! server.
//!
//! Only reads. Every failure says what was not reached and what to do.

mod cluster;
mod forward;

use std::net::SocketAddr;

use anyhow::{Context as _, anyhow, bail};
use serde::de::DeserializeOwned;

pub use self::cluster::{Cluster, ClusterError, Pod, open};
use crate::{args::ClusterArgs, fetch};

/// Where `maesh dev` has its admin endpoint unless told otherwise.
pub const DEV: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5380);

/// The roles of a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Controller,
    Dns,
    Proxy,
}

impl Role {
    /// Its name: the label of its pods, and how people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Dns => "dns",
            Self::Proxy => "proxy",
        }
    }

    /// Its admin port, where its pods do not say another.
    fn admin_port(self) -> u16 {
        match self {
            Self::Controller => 5381,
            Self::Dns => 5382,
            Self::Proxy => 5383,
        }
    }
}

/// A mesh that runs.
pub enum Mesh {
    /// One process with all roles.
    Dev(SocketAddr),
    /// Pods.
    Cluster(Box<Cluster>),
}

/// Somebody who can be asked.
#[derive(Clone, Debug)]
pub enum Member {
    /// The process.
    Dev,
    /// A pod.
    Pod(Pod),
}

impl Member {
    /// What people call it.
    pub fn name(&self) -> &str {
        match self {
            Self::Dev => "maesh dev",
            Self::Pod(pod) => &pod.name,
        }
    }
}

/// What asks the API server of the cluster that the flags mean.
///
/// # Errors
/// When there is no way to it; the message says what to do.
pub async fn client(args: &ClusterArgs) -> anyhow::Result<kube::Client> {
    Ok(open(args).await?.client())
}

/// A `maesh dev` is in no namespace: whoever names one meant that of Services.
fn has_no_namespace(args: &ClusterArgs) -> anyhow::Result<()> {
    match args.written_namespace() {
        Some(namespace) => bail!(
            "{} {namespace} says in which namespace of a cluster the mesh runs, and a `maesh dev` runs in none; leave it \
             away. For Services of namespace {namespace}, `--help` says how they are named",
            args.namespace_flag
        ),
        None => Ok(()),
    }
}

impl Mesh {
    /// The mesh that the flags mean.
    ///
    /// # Errors
    /// When there is no way to it; the message says what to do.
    pub async fn of(admin: Option<SocketAddr>, args: &ClusterArgs) -> anyhow::Result<Self> {
        if let Some(admin) = admin {
            has_no_namespace(args)?;
            let alive = fetch::get_from(admin, "/livez").await;
            alive.with_context(|| {
                format!(
                    "no `maesh dev` answers at {admin}; start one, or name the admin address it prints with --admin"
                )
            })?;
            return Ok(Self::Dev(admin));
        }
        let chosen = args.kubeconfig.is_some() || args.context.is_some();
        match cluster::connect(args).await {
            Ok(cluster) => Ok(Self::Cluster(Box::new(cluster))),
            Err(none) if !chosen && none.is_nowhere() => {
                if fetch::get_from(DEV, "/livez").await.is_ok() {
                    has_no_namespace(args)?;
                    return Ok(Self::Dev(DEV));
                }
                Err(anyhow!(
                    "nothing to look at: no kubeconfig was found, and no `maesh dev` answers at {DEV}; name a cluster \
                     with --kubeconfig FILE, or a `maesh dev` with --admin ADDR"
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How people call it.
    pub fn describe(&self) -> String {
        match self {
            Self::Dev(admin) => format!("maesh dev at {admin}"),
            Self::Cluster(cluster) => cluster.describe(),
        }
    }

    /// Those of a role that can be asked, the ready ones first.
    pub fn members(&self, role: Role) -> Vec<Member> {
        match self {
            Self::Dev(_) => vec![Member::Dev],
            Self::Cluster(cluster) => cluster.pods(role).into_iter().map(Member::Pod).collect(),
        }
    }

    /// The metrics of one of a role.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, role: Role, member: &Member) -> anyhow::Result<String> {
        match (self, member) {
            (Self::Cluster(cluster), Member::Pod(pod)) => Ok(cluster.ask(pod, role, "/metrics").await?),
            (Self::Dev(admin), _) => Ok(fetch::get_from(*admin, "/metrics").await?.1),
            (Self::Cluster(_), Member::Dev) => bail!("a cluster has no `maesh dev`"),
        }
    }

    /// Asks one of a role: `GET /api/PATH?QUERY`.
    ///
    /// # Errors
    /// When it does not answer, or not what was expected.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        role: Role,
        member: &Member,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let path = format!("/api/{path}?{query}");
        let body = match (self, member) {
            (Self::Dev(admin), _) => {
                let asked = fetch::get_from(*admin, &path).await;
                let (status, body) = asked.with_context(|| format!("{} was not reached", self.describe()))?;
                match status.as_u16() {
                    200 => body,
                    404 => bail!("{} has no {}; is it a `maesh dev` of this version?", self.describe(), role.as_str()),
                    _ => bail!("{}: {}", self.describe(), body.trim()),
                }
            }
            (Self::Cluster(cluster), Member::Pod(pod)) => cluster.ask(pod, role, &path).await?,
            (Self::Cluster(_), Member::Dev) => bail!("a cluster has no `maesh dev`"),
        };
        serde_json::from_str(&body).with_context(|| {
            format!("{} answered what this version does not understand; use the same version of maesh", member.name())
        })
    }
}
