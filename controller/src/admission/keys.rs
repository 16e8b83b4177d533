//! The keys that the API server signs tokens with, as it publishes them (RFC 7517).
//!
//! The key decides what algorithm there can be, never the token alone.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

use super::claims::Token;

/// What can be said of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    /// One of the keys made it.
    Good,
    /// The key that the token names did not make it.
    Bad,
    /// The token names no key that is known.
    UnknownKey,
}

/// The keys.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: String,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ecdsa { algorithm: &'static str, verify: &'static EcdsaVerificationAlgorithm, point: Vec<u8> },
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a set of keys; those of a sort that tokens of Kubernetes do not have are left out. `None` if it is no set
    /// or has none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let published: JwkSet = serde_json::from_str(text).ok()?;
        let keys: Vec<Key> = published.keys.iter().filter_map(Jwk::key).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Checks the signature of `token`.
    pub(super) fn verify(&self, token: &Token<'_>) -> Signature {
        let named = self.0.iter().filter(|key| token.header.kid.as_ref() == Some(&key.id));
        let mut found = Signature::UnknownKey;
        for key in named {
            if key.public.made(token) {
                return Signature::Good;
            }
            found = Signature::Bad;
        }
        found
    }
}

impl Jwk {
    fn key(&self) -> Option<Key> {
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let public = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: bytes(&self.n)?, e: bytes(&self.e)? },
            ("EC", Some(curve)) => {
                let (algorithm, verify, length) = match curve {
                    "P-256" => ("ES256", &ECDSA_P256_SHA256_FIXED, 32),
                    "P-384" => ("ES384", &ECDSA_P384_SHA384_FIXED, 48),
                    _ => return None,
                };
                let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
                let pad = |part: &[u8]| Some(vec![0; usize::checked_sub(length, part.len())?]);
                // An uncompressed point: both coordinates at their full length.
                let point = [vec![4], pad(&x)?, x, pad(&y)?, y].concat();
                Public::Ecdsa { algorithm, verify, point }
            }
            _ => return None,
        };
        Some(Key { id: self.kid.clone()?, public })
    }
}

impl Public {
    /// Whether this key made the signature of `token`.
    fn made(&self, token: &Token<'_>) -> bool {
        let Token { signed, signature, header, .. } = token;
        match self {
            Self::Rsa { n, e } => {
                let parameters = match &*header.alg {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &RSA_PKCS1_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            Self::Ecdsa { algorithm, verify, point } => {
                header.alg == *algorithm && UnparsedPublicKey::new(*verify, point).verify(signed, signature).is_ok()
            }
        }
    }
}
