//! The static table (RFC 7541 appendix A), as the decoder and the encoder need it.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{OVERHEAD, field::Field, sample::sample, table::Entry};

/// How many entries there are. Their indices begin with 1.
pub(super) const LEN: usize = 61;

// Entries that the encoder refers to.
pub(super) const AUTHORITY: usize = 1;
pub(super) const METHOD_GET: usize = 2;
pub(super) const METHOD_POST: usize = 3;
pub(super) const PATH_ROOT: usize = 4;
pub(super) const SCHEME_HTTP: usize = 6;
pub(super) const SCHEME_HTTPS: usize = 7;
pub(super) const STATUS_200: usize = 8;
pub(super) const ACCEPT_ENCODING: usize = 16;
pub(super) const AGE: usize = 21;
pub(super) const AUTHORIZATION: usize = 23;
pub(super) const CONTENT_LENGTH: usize = 28;
pub(super) const COOKIE: usize = 32;
pub(super) const ETAG: usize = 34;
pub(super) const PROXY_AUTHORIZATION: usize = 49;
pub(super) const SET_COOKIE: usize = 55;

macro_rules! entries {
    ($($name:literal: $value:literal,)*) => {
        const NAMES: [&str; LEN] = [$($name),*];
        static ENTRIES: [Entry; LEN] = [$(entry($name, $value)),*];
    };
}

entries! {
    ":authority": "",
    ":method": "GET",
    ":method": "POST",
    ":path": "/",
    ":path": "/index.html",
    ":scheme": "http",
    ":scheme": "https",
    ":status": "200",
    ":status": "204",
    ":status": "206",
    ":status": "304",
    ":status": "400",
    ":status": "404",
    ":status": "500",
    "accept-charset": "",
    "accept-encoding": "gzip, deflate",
    "accept-language": "",
    "accept-ranges": "",
    "accept": "",
    "access-control-allow-origin": "",
    "age": "",
    "allow": "",
    "authorization": "",
    "cache-control": "",
    "content-disposition": "",
    "content-encoding": "",
    "content-language": "",
    "content-length": "",
    "content-location": "",
    "content-range": "",
    "content-type": "",
    "cookie": "",
    "date": "",
    "etag": "",
    "expect": "",
    "expires": "",
    "from": "",
    "host": "",
    "if-match": "",
    "if-modified-since": "",
    "if-none-match": "",
    "if-range": "",
    "if-unmodified-since": "",
    "last-modified": "",
    "link": "",
    "location": "",
    "max-forwards": "",
    "proxy-authenticate": "",
    "proxy-authorization": "",
    "range": "",
    "referer": "",
    "refresh": "",
    "retry-after": "",
    "server": "",
    "set-cookie": "",
    "strict-transport-security": "",
    "transfer-encoding": "",
    "user-agent": "",
    "vary": "",
    "via": "",
    "www-authenticate": "",
}

const fn entry(name: &'static str, value: &'static str) -> Entry {
    let field = match (name.as_bytes(), value.as_bytes()) {
        (b":authority", text) => Field::Authority(Bytes::from_static(text)),
        (b":method", b"GET") => Field::Method(Method::GET),
        (b":method", b"POST") => Field::Method(Method::POST),
        (b":path", text) => Field::Path(Bytes::from_static(text)),
        (b":scheme", text) => Field::Scheme(Bytes::from_static(text)),
        (b":status", b"200") => Field::Status(StatusCode::OK),
        (b":status", b"204") => Field::Status(StatusCode::NO_CONTENT),
        (b":status", b"206") => Field::Status(StatusCode::PARTIAL_CONTENT),
        (b":status", b"304") => Field::Status(StatusCode::NOT_MODIFIED),
        (b":status", b"400") => Field::Status(StatusCode::BAD_REQUEST),
        (b":status", b"404") => Field::Status(StatusCode::NOT_FOUND),
        (b":status", b"500") => Field::Status(StatusCode::INTERNAL_SERVER_ERROR),
        _ => Field::Header(HeaderName::from_static(name), HeaderValue::from_static(value)),
    };
    Entry { field, size: name.len() + value.len() + OVERHEAD, malformed: None }
}

/// The entry with this index.
#[inline]
pub(super) fn get(index: usize) -> Option<&'static Entry> {
    ENTRIES.get(index.wrapping_sub(1))
}

/// Indices by the sample of their names; where two meet, the second one takes the next free slot.
static BY_SAMPLE: [u8; SLOTS] = by_sample();

const SLOTS: usize = 128;

const fn by_sample() -> [u8; SLOTS] {
    let mut slots = [0; SLOTS];
    // The first entry with a name stands for all.
    let mut index = 1;
    while index <= LEN {
        let mut slot = sample(NAMES[index - 1].as_bytes()) as usize % SLOTS;
        let repeated = index > 1 && same(NAMES[index - 1].as_bytes(), NAMES[index - 2].as_bytes());
        while slots[slot] != 0 && !repeated {
            slot = (slot + 1) % SLOTS;
        }
        if !repeated {
            slots[slot] = index as u8;
        }
        index += 1;
    }
    slots
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    match (one.split_first(), other.split_first()) {
        (None, None) => true,
        (Some((a, one)), Some((b, other))) => *a == *b && same(one, other),
        _ => false,
    }
}

/// The index of the first entry with this name, whose [`sample`] is given; 0 if there is none.
pub(super) fn index_of(name: &[u8], sample: u64) -> usize {
    let mut slot = sample as usize % SLOTS;
    loop {
        let index = usize::from(BY_SAMPLE[slot]);
        if index == 0 || NAMES[index - 1].as_bytes() == name {
            return index;
        }
        slot = (slot + 1) % SLOTS;
    }
}
