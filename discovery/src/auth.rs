//! Who may subscribe.
//!
//! The one question is asked when a stream opens. In a cluster the controller answers it by a review of the
//! subscriber's ServiceAccount token; here are the two answers that need no cluster.

use std::{fmt, future::Future, io, net::SocketAddr, path::Path, pin::Pin, sync::Arc};

use crate::{
    small_file,
    update::{Identity, Role},
};
use maesh_config::NodeName;

/// What a subscriber shows when it opens a stream.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The token of `authorization: Bearer`.
    pub bearer: Option<&'a str>,
    /// Where the connection comes from; `None` within the process.
    pub peer: Option<SocketAddr>,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bearer = self.bearer.map(|_| "(hidden)");
        f.debug_struct("Credentials").field("bearer", &bearer).field("peer", &self.peer).finish()
    }
}

/// Who a subscriber was found to be, as far as the credentials say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The pod that the token is bound to; the subscriber may go by no other name.
    pub pod: Option<Arc<str>>,
    /// The only role it may have.
    pub role: Option<Role>,
    /// The only node on which it may say to be.
    pub node: Option<NodeName>,
}

impl Principal {
    /// Whether a subscriber with these credentials may be `identity`; the reason if not.
    pub(super) fn may_be(&self, identity: &Identity) -> Result<(), String> {
        if self.pod.as_ref().is_some_and(|pod| *pod != identity.id) {
            return Err(format!("this token does not belong to {}", identity.id));
        }
        if self.role.is_some_and(|role| role != identity.role) {
            return Err(format!("this token does not belong to the role {:?}", identity.role));
        }
        if self.node.is_some() && self.node != identity.node {
            return Err("this token belongs to a pod of another node".to_owned());
        }
        Ok(())
    }
}

/// Why a stream is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No, or no valid, credentials.
    #[error("{0}")]
    Unknown(String),
    /// Valid, but not of a subscriber of this mesh.
    #[error("{0}")]
    Forbidden(String),
    /// It cannot be found out now; another try is worth it.
    #[error("{0}")]
    Unavailable(String),
}

/// The answer, when it comes.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Principal, Refused>> + Send + 'a>>;

/// Decides who may subscribe.
pub trait Authenticate: fmt::Debug + Send + Sync + 'static {
    /// Judges what a subscriber shows.
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answer<'a>;

    /// Whether it is sound to listen on `address` with this way of judging, with or without TLS; the reason if not.
    ///
    /// # Errors
    /// Without TLS a token could be read on its way, so anything but loopback is refused.
    fn may_listen(&self, address: SocketAddr, tls: bool) -> Result<(), String> {
        if tls || address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(format!(
            "{address} can be reached from other machines, and without TLS anybody there could read tokens; configure TLS, or listen on loopback"
        ))
    }
}

/// Admits every subscriber without authentication: for pipes within a process, and for loopback.
#[derive(Debug)]
pub struct NoAuthentication {
    anywhere: bool,
}

impl NoAuthentication {
    /// Serves on loopback addresses only, because subscribers are not authenticated.
    pub fn loopback() -> Self {
        Self { anywhere: false }
    }

    /// Asks nobody who they are wherever they come from: whoever reaches the port reads the whole configuration.
    pub fn insecure() -> Self {
        Self { anywhere: true }
    }
}

impl Authenticate for NoAuthentication {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answer<'a> {
        let local = credentials.peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback());
        let answer = if self.anywhere || local {
            Ok(Principal::default())
        } else {
            Err(Refused::Forbidden("only subscribers of this machine are served without authentication".to_owned()))
        };
        Box::pin(std::future::ready(answer))
    }

    fn may_listen(&self, address: SocketAddr, _: bool) -> Result<(), String> {
        if self.anywhere || address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(format!("{address} can be reached from other machines; configure authentication, or listen on loopback"))
    }
}

/// Admits whoever knows a secret.
pub struct SharedSecret(Box<[u8]>);

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(hidden)")
    }
}

/// Shortest secret that is accepted, in bytes.
const SHORTEST: usize = 16;

impl SharedSecret {
    /// A secret; white space around it does not count.
    ///
    /// # Errors
    /// When it is shorter than 16 bytes.
    pub fn new(secret: &str) -> io::Result<Self> {
        let secret = secret.trim();
        if secret.len() < SHORTEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the shared secret has less than 16 characters"));
        }
        Ok(Self(secret.as_bytes().into()))
    }

    /// The secret in a file.
    ///
    /// # Errors
    /// When the file cannot be read, or its secret is too short.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        Self::new(&small_file::read_text(path)?)
    }
}

impl Authenticate for SharedSecret {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answer<'a> {
        let answer = match credentials.bearer {
            None => Err(Refused::Unknown("authorization: Bearer is missing".to_owned())),
            Some(shown) if same(shown.as_bytes(), &self.0) => Ok(Principal::default()),
            Some(_) => Err(Refused::Unknown("this is not the shared secret".to_owned())),
        };
        Box::pin(std::future::ready(answer))
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    let different = a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    a.len() == b.len() && different == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_admitted() {
        let secret = || SharedSecret::new(" 0123456789abcdef\n").unwrap();
        let (here, there) = (Some("127.0.0.9:1"), Some("10.0.0.9:1"));
        type Row<'a> = (&'a str, Box<dyn Authenticate>, Option<&'a str>, Option<&'a str>, bool);
        let rows: [Row<'_>; 9] = [
            ("the secret", Box::new(secret()), Some("0123456789abcdef"), there, true),
            ("another one of its length", Box::new(secret()), Some("0123456789abcdeX"), here, false),
            ("its beginning", Box::new(secret()), Some("0123456789"), here, false),
            ("nothing shown", Box::new(secret()), None, here, false),
            ("nobody asked, loopback", Box::new(NoAuthentication::loopback()), None, here, true),
            (
                "nobody asked, mapped loopback",
                Box::new(NoAuthentication::loopback()),
                None,
                Some("[::ffff:127.0.0.1]:1"),
                true,
            ),
            ("nobody asked, in process", Box::new(NoAuthentication::loopback()), None, None, true),
            ("nobody asked, from elsewhere", Box::new(NoAuthentication::loopback()), None, there, false),
            ("insecure, from elsewhere", Box::new(NoAuthentication::insecure()), None, there, true),
        ];
        for (case, auth, bearer, peer, admitted) in rows {
            let peer = peer.map(|text| text.parse().unwrap());
            assert_eq!(auth.authenticate(Credentials { bearer, peer }).await.is_ok(), admitted, "{case}");
        }
    }

    #[test]
    fn where_it_may_listen() {
        let secret = SharedSecret::new("0123456789abcdef").unwrap();
        let rows: [(&str, &dyn Authenticate, &str, bool, bool); 6] = [
            ("secret in clear on loopback", &secret, "127.0.0.1:1", false, true),
            ("secret in clear for others", &secret, "0.0.0.0:1", false, false),
            ("secret under TLS", &secret, "0.0.0.0:1", true, true),
            ("nobody on loopback", &NoAuthentication::loopback(), "[::1]:1", false, true),
            ("nobody for others, even under TLS", &NoAuthentication::loopback(), "10.0.0.1:1", true, false),
            ("insecure on purpose", &NoAuthentication::insecure(), "0.0.0.0:1", false, true),
        ];
        for (case, auth, address, tls, sound) in rows {
            assert_eq!(auth.may_listen(address.parse().unwrap(), tls).is_ok(), sound, "{case}");
        }
        assert!(SharedSecret::new("short").is_err());
    }

    #[test]
    fn a_token_binds_its_bearer() {
        let identity = |id: &str, role, node: Option<&str>| Identity {
            role,
            id: id.into(),
            node: node.map(NodeName::from),
            addresses: vec![],
            version: "".into(),
        };
        let bound = Principal { pod: Some("p".into()), role: Some(Role::Proxy), node: Some("n".into()) };
        for (case, identity, may) in [
            ("itself", identity("p", Role::Proxy, Some("n")), true),
            ("another pod", identity("q", Role::Proxy, Some("n")), false),
            ("another role", identity("p", Role::Dns, Some("n")), false),
            ("another node", identity("p", Role::Proxy, Some("m")), false),
            ("no node", identity("p", Role::Proxy, None), false),
        ] {
            assert_eq!(bound.may_be(&identity).is_ok(), may, "{case}");
        }
    }
}
