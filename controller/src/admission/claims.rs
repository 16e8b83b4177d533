//! What a token says, and whose it is by that. No clock, no network; every text here comes from strangers.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use maesh_config::NodeName;
use maesh_discovery::{
    auth::{Principal, Refused},
    update::Role,
};
use serde::{Deserialize, de::DeserializeOwned};

/// Whom tokens of subscribers are meant for.
pub(super) const AUDIENCE: &str = "maesh";
/// Longest token that is looked at, in bytes; those of Kubernetes have about a thousand.
const LONGEST: usize = 16 << 10;
/// How far the clock of the API server may be ahead.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);

/// The ServiceAccounts of subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// The mesh's namespace.
    pub namespace: String,
    /// The ServiceAccount of dns.
    pub dns: String,
    /// The ServiceAccount of the proxies.
    pub proxy: String,
}

impl Accounts {
    /// The role of the user `name`.
    fn role(&self, name: &str) -> Option<Role> {
        let (namespace, account) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        match account {
            _ if namespace != self.namespace => None,
            account if account == self.dns => Some(Role::Dns),
            account if account == self.proxy => Some(Role::Proxy),
            _ => None,
        }
    }

    /// The principal of the user `name`, whose token is bound to `pod` on `node`.
    fn principal(&self, name: &str, pod: Option<&str>, node: Option<&str>) -> Result<Principal, Refused> {
        let Some(role) = self.role(name) else {
            return Err(Refused::Forbidden(format!(
                "{} is no subscriber of this mesh",
                maesh_compiler::diagnostic::shortened(name)
            )));
        };
        let Some(pod) = pod.filter(|pod| !pod.is_empty()) else {
            return Err(Refused::Forbidden(
                "this token belongs to no pod; subscribers show the one projected into theirs".to_owned(),
            ));
        };
        let node = node.filter(|node| !node.is_empty()).map(NodeName::from);
        Ok(Principal { pod: Some(pod.into()), role: Some(role), node })
    }
}

/// A token in its parts. Nothing of it is proven.
pub(super) struct Token<'a> {
    /// What the signature is over.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    pub(super) header: Header,
    pub(super) claims: Claims,
}

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
}

/// What of its claims counts.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    aud: Audience,
    exp: i64,
    nbf: Option<i64>,
    sub: String,
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

#[derive(Default, Deserialize)]
struct Kubernetes {
    pod: Option<Named>,
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl<'a> Token<'a> {
    /// Takes a token apart; `None` if it is not one.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.').filter(|_| text.len() <= LONGEST)?;
        let (header, claims) = signed.split_once('.')?;
        Some(Self {
            signed: signed.as_bytes(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            header: decoded(header)?,
            claims: decoded(claims)?,
        })
    }
}

fn decoded<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

impl Claims {
    /// When it expires.
    pub(super) fn expires(&self) -> Timestamp {
        Timestamp::from_second(self.exp).unwrap_or(if self.exp < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }

    /// Whose token it is by its own words, at `now`.
    pub(super) fn principal(&self, accounts: &Accounts, now: Timestamp) -> Result<Principal, Refused> {
        let meant = match &self.aud {
            Audience::One(one) => one == AUDIENCE,
            Audience::Several(all) => all.iter().any(|one| one == AUDIENCE),
        };
        let unknown = |why: &str| Err(Refused::Unknown(why.to_owned()));
        if !meant {
            return unknown("this token is not meant for maesh; its audience is another");
        }
        if self.expires() <= now {
            return unknown("this token has expired");
        }
        if self.nbf.is_some_and(|from| from > (now + AHEAD).as_second()) {
            return unknown("this token is not valid yet; check the clocks");
        }
        let name = |named: &Option<Named>| named.as_ref().map(|named| named.name.clone());
        let (pod, node) = (name(&self.kubernetes.pod), name(&self.kubernetes.node));
        accounts.principal(&self.sub, pod.as_deref(), node.as_deref())
    }
}

/// Whose token it is by the API server's words.
pub(super) fn reviewed(status: &TokenReviewStatus, accounts: &Accounts) -> Result<Principal, Refused> {
    let meant = status.audiences.iter().flatten().any(|one| one == AUDIENCE);
    if status.authenticated != Some(true) || !meant {
        return Err(Refused::Unknown("the API server does not accept this token".to_owned()));
    }
    let user = status.user.clone().unwrap_or_default();
    let extra = |key: &str| {
        let values = user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{key}"))?;
        values.first().map(|value| Arc::<str>::from(value.as_str()))
    };
    accounts.principal(
        user.username.as_deref().unwrap_or_default(),
        extra("pod-name").as_deref(),
        extra("node-name").as_deref(),
    )
}

#[cfg(test)]
mod tests;
