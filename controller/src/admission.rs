//! Who may subscribe in a cluster: pods of dns and proxies, by the ServiceAccount token that is projected into them.
//!
//! A token says whose it is, and the API server says whether that is true and the pod still there (TokenReview). What
//! cannot be ours by its own words is refused without asking. While the API server is away, the keys that it signs with,
//! fetched before, decide instead. Nobody else gets anything.

mod cache;
mod claims;
mod keys;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use maesh_discovery::auth::{Answer, Authenticate, Credentials, Principal, Refused};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::{sleep, timeout},
};

use self::{
    cache::Cache,
    claims::Token,
    keys::{Keys, Signature},
};

pub use self::claims::Accounts;

/// Longest time that a review may take before the cached keys decide.
const REVIEW: Duration = Duration::from_secs(2);
/// How long the API server is left alone after it did not answer one.
const AWAY: Duration = Duration::from_secs(5);
/// Reviews at once of tokens whose signature is not known to be good: strangers cannot keep the API server busy.
const DOUBTFUL: usize = 4;
/// How often keys are fetched anew.
const KEYS: Duration = Duration::from_secs(300);
/// Shortest time between two fetches, where there are no keys or a token names one that is not there.
const KEYS_AGAIN: Duration = Duration::from_secs(2);
/// Where the API server publishes its keys.
const KEYS_PATH: &str = "/openid/v1/jwks";

/// Admits the mesh's own pods.
pub struct Admission {
    accounts: Accounts,
    reviews: Api<TokenReview>,
    keys: Arc<Fetched>,
    doubtful: Semaphore,
    cache: Mutex<Cache>,
    away_until: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

/// The keys, and who waits for others.
#[derive(Default)]
struct Fetched {
    keys: ArcSwapOption<Keys>,
    wanted: Notify,
}

impl Admission {
    /// Admits pods that run as `accounts`. Begins to fetch keys; must be called within a runtime.
    pub fn start(client: Client, accounts: Accounts) -> Arc<Self> {
        let keys = Arc::<Fetched>::default();
        tokio::spawn(fetch(client.clone(), Arc::downgrade(&keys)));
        Arc::new(Self {
            accounts,
            reviews: Api::all(client),
            keys,
            doubtful: Semaphore::new(DOUBTFUL),
            cache: Mutex::default(),
            away_until: Mutex::default(),
        })
    }

    async fn judge(&self, bearer: Option<&str>) -> Result<Principal, Refused> {
        let Some(text) = bearer else {
            return Err(Refused::Unknown("authorization: Bearer is missing".to_owned()));
        };
        let now = Timestamp::now();
        let Some(token) = Token::parse(text) else {
            return Err(Refused::Unknown("this is not the token of a ServiceAccount".to_owned()));
        };
        let said = token.claims.principal(&self.accounts, now)?;
        if let Some(known) = self.cache.lock().get(text, Instant::now()) {
            return known;
        }
        let signature = self.signature(&token);
        if signature == Signature::Bad {
            return Err(Refused::Unknown("the signature of this token is not the cluster's".to_owned()));
        }
        match self.review(text, signature).await {
            Some(answer) => {
                let left = Duration::try_from(token.claims.expires() - now).unwrap_or_default();
                self.cache.lock().put(text, answer.clone(), Instant::now(), left);
                answer
            }
            None if signature == Signature::Good => Ok(said),
            None => Err(Refused::Unavailable(
                "the API server does not answer, and the key that signed this token is not known here".to_owned(),
            )),
        }
    }

    fn signature(&self, token: &Token<'_>) -> Signature {
        let keys = self.keys.keys.load();
        let found = keys.as_ref().map_or(Signature::UnknownKey, |keys| keys.verify(token));
        if found == Signature::UnknownKey {
            self.keys.wanted.notify_one();
        }
        found
    }

    /// What the API server says of a token; `None` if it says nothing in time.
    async fn review(&self, token: &str, signature: Signature) -> Option<Result<Principal, Refused>> {
        if self.away_until.lock().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let _turn = match signature {
            Signature::Good => None,
            _ => Some(self.doubtful.try_acquire().ok()?),
        };
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![claims::AUDIENCE.to_owned()]) };
        let asked = TokenReview { spec, ..TokenReview::default() };
        let answer = timeout(REVIEW, self.reviews.create(&PostParams::default(), &asked)).await;
        let why = match answer {
            Ok(Ok(review)) => {
                *self.away_until.lock() = None;
                return Some(claims::reviewed(&review.status.unwrap_or_default(), &self.accounts));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {REVIEW:?}"),
        };
        if self.away_until.lock().replace(Instant::now() + AWAY).is_none() {
            tracing::warn!(
                error = why,
                "the API server reviews no tokens; they are checked against its signing keys, fetched before, until it \
                 does. Where it goes on: allow create on tokenreviews to the controller's ServiceAccount"
            );
        }
        None
    }
}

impl Authenticate for Admission {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answer<'a> {
        Box::pin(self.judge(credentials.bearer))
    }
}

/// Keeps the keys current for as long as anybody uses them; without an answer the last ones stay.
async fn fetch(client: Client, into: std::sync::Weak<Fetched>) {
    loop {
        let found = match http::Request::get(KEYS_PATH).body(Vec::new()) {
            Ok(request) => client.request_text(request).await,
            Err(_) => return,
        };
        let Some(into) = into.upgrade() else { return };
        match found {
            Ok(text) => into.keys.store(Keys::parse(&text).map(Arc::new).or_else(|| into.keys.load_full())),
            Err(error) => tracing::debug!(%error, "the API server's signing keys cannot be fetched; trying on"),
        }
        let pause = if into.keys.load().is_some() { KEYS } else { KEYS_AGAIN };
        // Nobody is waited for while this holds on to what they wait for.
        sleep(KEYS_AGAIN).await;
        let _ = timeout(pause, into.wanted.notified()).await;
    }
}
