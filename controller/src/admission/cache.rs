//! What the API server said of tokens a moment ago.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use maesh_discovery::auth::{Principal, Refused};
use ring::digest::{SHA256, digest};

/// How long an admission counts; a pod that was deleted may open a stream for that long.
const ADMITTED: Duration = Duration::from_secs(60);
/// How long a refusal counts.
const REFUSED: Duration = Duration::from_secs(10);
/// Answers that are kept; more than the pods of a large mesh.
const MOST: usize = 16_384;

type ReviewResult = Result<Principal, Refused>;

/// Answers by the hash of the token: tokens themselves are not kept.
#[derive(Default)]
pub(super) struct Cache(HashMap<[u8; 32], (Instant, ReviewResult)>);

impl Cache {
    pub(super) fn get(&self, token: &str, now: Instant) -> Option<ReviewResult> {
        self.0.get(&hash(token)).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer, `left` before the token expires.
    pub(super) fn put(&mut self, token: &str, answer: ReviewResult, now: Instant, left: Duration) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (until, _)| now < *until);
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let counts = if answer.is_ok() { ADMITTED } else { REFUSED };
        self.0.insert(hash(token), (now + counts.min(left), answer));
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_for_a_while() {
        let start = Instant::now();
        let (admitted, refused) = (Ok(Principal::default()), Err(Refused::Unknown("no".to_owned())));
        let long = Duration::from_secs(3600);
        for (case, answer, left, after, known) in [
            ("admitted a moment ago", &admitted, long, 59, true),
            ("admitted a while ago", &admitted, long, 60, false),
            ("it expires before", &admitted, Duration::from_secs(7), 7, false),
            ("it expires soon", &admitted, Duration::from_secs(7), 6, true),
            ("refused a moment ago", &refused, long, 9, true),
            ("refused a while ago", &refused, long, 10, false),
        ] {
            let mut cache = Cache::default();
            cache.put("token", answer.clone(), start, left);
            let now = start + Duration::from_secs(after);
            assert_eq!(cache.get("token", now), known.then(|| answer.clone()), "{case}");
            assert_eq!(cache.get("another", now), None, "{case}");
        }
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let mut cache = Cache::default();
        let now = Instant::now();
        for number in 0..MOST + 10 {
            cache.put(&number.to_string(), Ok(Principal::default()), now, ADMITTED);
        }
        assert!(cache.0.len() <= MOST);
        assert!(cache.get(&(MOST + 9).to_string(), now).is_some(), "the last one is known");
    }
}
