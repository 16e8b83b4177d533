//! What is written down of authorities.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::CaLifetimes;

/// One authority.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// Its name in certificates; no two have the same. Empty for one that is only believed.
    pub name: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM. Without it, it is only believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// From when on it signs; unknown until it has been published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs_from: Option<Timestamp>,
    /// Until when it is believed.
    pub until: Timestamp,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("name", &self.name)
            .field("key", &self.key.as_ref().map(|_| "(hidden)"))
            .field("signs_from", &self.signs_from)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Whether it may sign at all at `now`.
    fn is_able(&self, now: Timestamp) -> bool {
        self.key.is_some() && now < self.until
    }

    /// Whether it has been signing for `time` at `now`.
    fn signs_since(&self, now: Timestamp, time: std::time::Duration) -> bool {
        self.signs_from.is_some_and(|from| from.saturating_add(time).is_ok_and(|then| then <= now))
    }
}

/// Every authority that is believed, the oldest first. What the Secret holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Book(pub Vec<Authority>);

impl Book {
    /// The one whose signature counts at `now`: of those that may sign, the newest whose time has come.
    pub fn signer(&self, now: Timestamp) -> Option<&Authority> {
        let able = self.0.iter().filter(|it| it.is_able(now) && it.signs_since(now, std::time::Duration::ZERO));
        able.max_by_key(|it| it.signs_from)
    }

    /// The one to use by who has nothing else: the signer, or one whose time has not come.
    pub(super) fn signer_in_need(&self, now: Timestamp) -> Option<&Authority> {
        self.signer(now).or_else(|| self.0.iter().find(|it| it.is_able(now)))
    }

    /// The newest that may sign now or later.
    pub(super) fn newest(&self, now: Timestamp) -> Option<&Authority> {
        self.0.iter().rfind(|it| it.is_able(now))
    }

    /// Whether nobody needs the authority at `index` any more: it is out of date, or others have been signing for so
    /// long that nothing it signed is in use.
    pub(super) fn is_over(&self, index: usize, now: Timestamp, terms: &CaLifetimes) -> bool {
        let Some(it) = self.0.get(index) else { return false };
        let replaced = it.key.is_some()
            && self.0.iter().any(|other| {
                other.is_able(now)
                    && it.signs_from.is_some_and(|its| other.signs_from > Some(its))
                    && other.signs_since(now, terms.afterwards())
            });
        it.until <= now || replaced
    }

    /// What is to be published.
    pub fn bundle(&self) -> Bundle {
        Bundle(self.0.iter().map(|it| it.certificate.trim().to_owned()).collect())
    }
}

/// Certificates, as a set. What the ConfigMap holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle(pub BTreeSet<String>);

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

impl Bundle {
    /// The certificates in a PEM file; what stands between them does not count.
    pub fn parse(text: &str) -> Self {
        let blocks = text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
        Self(blocks.map(|(body, _)| format!("{BEGIN}{body}{END}")).collect())
    }

    /// As a PEM file.
    pub fn to_pem(&self) -> String {
        self.0.iter().map(|certificate| format!("{certificate}\n")).collect()
    }
}
