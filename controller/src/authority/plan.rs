//! What to do now, given what is there. No clock, no chance, no network.

use jiff::Timestamp;

use super::{
    CaLifetimes,
    book::{Authority, Book, Bundle},
};

/// The leader's next step. After each, what is there is looked at again, so that any leader can go on from where
/// another left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write a book with these, and a new authority after them that signs from then on.
    Create { keep: Vec<Authority>, signs_from: Option<Timestamp> },
    /// Write this book.
    Write(Book),
    /// Publish these certificates.
    Publish(Bundle),
    /// Nothing is due.
    Rest,
}

/// What the leader does at `now`. `book` is the Secret's, if there is a legible one; `published` is what dns and proxies
/// are told to believe, if there is anything.
pub(super) fn step(book: Option<&Book>, published: Option<&Bundle>, now: Timestamp, terms: &CaLifetimes) -> Step {
    let Some(book) = book.filter(|book| book.newest(now).is_some()) else {
        return begin(book, published, now, terms);
    };
    let kept: Vec<Authority> =
        (0..book.0.len()).filter(|at| !book.is_over(*at, now, terms)).map(|at| book.0[at].clone()).collect();
    if kept.len() != book.0.len() {
        return Step::Write(Book(kept));
    }
    let published_now = published.is_some_and(|published| *published == book.bundle());
    if !published_now {
        return Step::Publish(book.bundle());
    }
    if book.0.iter().any(|it| it.key.is_some() && it.signs_from.is_none()) {
        // It is published: from here the time runs that it takes to reach everybody.
        let from = after(now, terms.spread);
        let timed = |it: &Authority| Authority { signs_from: it.signs_from.or(Some(from)), ..it.clone() };
        return Step::Write(Book(book.0.iter().map(timed).collect()));
    }
    let ends_soon = book.newest(now).is_none_or(|newest| newest.until <= after(now, terms.renew_before));
    if ends_soon { Step::Create { keep: book.0.clone(), signs_from: None } } else { Step::Rest }
}

/// There is nobody who could sign: the first start, or the Secret is lost.
fn begin(book: Option<&Book>, published: Option<&Bundle>, now: Timestamp, terms: &CaLifetimes) -> Step {
    let mut keep: Vec<Authority> = book.map(|book| book.0.clone()).unwrap_or_default();
    keep.retain(|it| now < it.until);
    // Replicas that run hold certificates of authorities that are lost: these are believed for as long as they last.
    for certificate in published.iter().flat_map(|published| &published.0) {
        if keep.iter().all(|it| it.certificate.trim() != certificate) {
            keep.push(Authority {
                name: String::new(),
                certificate: certificate.clone(),
                key: None,
                signs_from: None,
                until: after(now, terms.afterwards()),
            });
        }
    }
    // Where nobody believes anybody yet, nobody has to be waited for.
    let signs_from = keep.is_empty().then_some(now);
    Step::Create { keep, signs_from }
}

/// A certificate that a replica serves with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The certificate of the authority that signed it.
    pub(super) authority: String,
    pub(super) issued: Timestamp,
    pub(super) until: Timestamp,
}

/// By whom a replica has a new certificate signed at `now`; `None`: it keeps what it has, or there is nobody.
pub(super) fn sign<'a>(book: &'a Book, held: Option<&Held>, now: Timestamp) -> Option<&'a Authority> {
    let Some(held) = held.filter(|held| now < held.until) else { return book.signer_in_need(now) };
    let signer = book.signer(now)?;
    let half = held.issued.as_second() + (held.until.as_second() - held.issued.as_second()) / 2;
    (held.authority != signer.certificate || now.as_second() >= half).then_some(signer)
}

/// By whom the certificate of DNS over TLS is to be signed anew at `now`; `None`: it stays, or there is nobody. `held` is the
/// one in the Secret, if it has all names and is signed by one of the book.
///
/// Where the CA's Secret was lost and the time of the new authority has not come, the certificate is replaced when a tenth
/// of its life is left: late, because clients have to learn of the new authority, but before it ends, because dns reads it
/// from files that kubelets renew.
pub(super) fn sign_dns<'a>(book: &'a Book, held: Option<&Held>, now: Timestamp) -> Option<&'a Authority> {
    let ends_soon = held.is_some_and(|held| {
        let (issued, until) = (held.issued.as_second(), held.until.as_second());
        now.as_second() >= until - (until - issued) / 10
    });
    let signer = sign(book, held.filter(|_| !ends_soon), now)?;
    // A new one that ends no later is of no use.
    let is_better = |held: &Held| {
        held.until <= now
            || held.authority.trim() != signer.certificate.trim()
            || held.until.as_second() < signer.until.as_second()
    };
    held.is_none_or(is_better).then_some(signer)
}

/// `time` after `now`, as far as there is a time.
pub(super) fn after(now: Timestamp, time: std::time::Duration) -> Timestamp {
    now.saturating_add(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
