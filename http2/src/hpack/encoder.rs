//! Header blocks for the peer.
//!
//! A field that is in the table is one or two bytes. One that is not is written out, and put into the table if it was
//! there before not long ago: most fields are the same in each request or never again, and the second kind must not
//! push out the first one. Strings are not Huffman-coded: most of a block is indices, and the bits saved on the rest
//! are not worth the time.

mod table;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use self::table::Table;
use super::{
    DEFAULT_TABLE_SIZE, integer,
    sample::{fold, sample},
    static_table::{self as statics, LEN as STATIC_LEN},
};

/// A cookie shorter than this could be guessed, one try after the other, by somebody who sees how long blocks are
/// (RFC 7541 section 7.1): it is not put into any table.
const SHORT_COOKIE: usize = 20;

/// Encodes the header blocks of one connection.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: Table,
    /// Changes of the table's size that the peer was not told yet.
    resize: Option<Resize>,
}

#[derive(Clone, Copy, Debug)]
struct Resize {
    lowest: usize,
    last: usize,
}

/// How a field that is not in the table is written (RFC 7541 section 6.2).
#[derive(Clone, Copy)]
enum Literal {
    /// It is in the table from now on.
    Indexed,
    /// It stays out of the table.
    Plain,
    /// The same, and nobody on the way to its reader may put it into a table either.
    NeverIndexed,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(), resize: None }
    }

    /// Takes note of the peer's SETTINGS_HEADER_TABLE_SIZE, which holds from the next block on. No more than 4096
    /// bytes of it are used.
    pub(crate) fn set_max_size(&mut self, size: usize) {
        let last = size.min(DEFAULT_TABLE_SIZE);
        let lowest = self.resize.map_or(last, |resize| resize.lowest.min(last));
        self.resize = Some(Resize { lowest, last });
    }

    /// Begins a block. Its fields follow, and nothing else may go into `out` between them.
    #[inline]
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(resize) = self.resize.take() {
            self.tell(resize.lowest.min(self.table.max_size()), out);
            self.tell(resize.last, out);
        }
    }

    fn tell(&mut self, max_size: usize, out: &mut Vec<u8>) {
        if max_size != self.table.max_size() {
            self.table.set_max_size(max_size);
            integer::encode(max_size, 5, 0x20, out);
        }
    }

    #[inline]
    pub(crate) fn method(&mut self, method: &Method, out: &mut Vec<u8>) {
        match *method {
            Method::GET => index(statics::METHOD_GET, out),
            Method::POST => index(statics::METHOD_POST, out),
            _ => self.pseudo(statics::METHOD_GET, b":method", method.as_str().as_bytes(), out),
        }
    }

    #[inline]
    pub(crate) fn scheme(&mut self, scheme: &[u8], out: &mut Vec<u8>) {
        match scheme {
            b"http" => index(statics::SCHEME_HTTP, out),
            b"https" => index(statics::SCHEME_HTTPS, out),
            _ => self.pseudo(statics::SCHEME_HTTP, b":scheme", scheme, out),
        }
    }

    #[inline]
    pub(crate) fn authority(&mut self, authority: &[u8], out: &mut Vec<u8>) {
        self.pseudo(statics::AUTHORITY, b":authority", authority, out);
    }

    #[inline]
    pub(crate) fn path(&mut self, path: &[u8], out: &mut Vec<u8>) {
        match path {
            b"/" => index(statics::PATH_ROOT, out),
            // What comes after the path is rarely the same again, and may be a secret.
            _ if path.contains(&b'?') => literal(Literal::Plain, statics::PATH_ROOT, b":path", path, out),
            _ => self.pseudo(statics::PATH_ROOT, b":path", path, out),
        }
    }

    #[inline]
    pub(crate) fn protocol(&mut self, protocol: &[u8], out: &mut Vec<u8>) {
        self.pseudo(0, b":protocol", protocol, out);
    }

    #[inline]
    pub(crate) fn status(&mut self, status: StatusCode, out: &mut Vec<u8>) {
        let place = match status.as_u16() {
            200 => 0,
            204 => 1,
            206 => 2,
            304 => 3,
            400 => 4,
            404 => 5,
            500 => 6,
            _ => return self.pseudo(statics::STATUS_200, b":status", status.as_str().as_bytes(), out),
        };
        index(statics::STATUS_200 + place, out);
    }

    #[inline]
    pub(crate) fn header(&mut self, name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
        let name = name.as_str().as_bytes();
        let name_sample = sample(name);
        let hash = fold(name_sample, sample(value.as_bytes()));
        if !value.is_sensitive()
            && let Some(found) = self.table.find(hash, name, value.as_bytes())
        {
            index(found + STATIC_LEN, out);
        } else {
            self.unindexed_header(name, name_sample, hash, value, out);
        }
    }

    #[inline(never)]
    fn unindexed_header(&mut self, name: &[u8], name_sample: u64, hash: u64, value: &HeaderValue, out: &mut Vec<u8>) {
        let name_index = statics::index_of(name, name_sample);
        let text = value.as_bytes();
        let kind = match name_index {
            _ if value.is_sensitive() => Literal::NeverIndexed,
            statics::AUTHORIZATION | statics::PROXY_AUTHORIZATION => Literal::NeverIndexed,
            statics::COOKIE if text.len() < SHORT_COOKIE => Literal::NeverIndexed,
            statics::ACCEPT_ENCODING if text == b"gzip, deflate" => return index(name_index, out),
            statics::AGE | statics::CONTENT_LENGTH | statics::ETAG | statics::SET_COOKIE => Literal::Plain,
            _ => self.remember(hash, name, text),
        };
        literal(kind, name_index, name, text, out);
    }

    /// A pseudo-header field; `name_index` is that of its name in the static table, or 0.
    #[inline]
    fn pseudo(&mut self, name_index: usize, name: &'static [u8], value: &[u8], out: &mut Vec<u8>) {
        let hash = fold(sample(name), sample(value));
        match self.table.find(hash, name, value) {
            Some(found) => index(found + STATIC_LEN, out),
            None => {
                let kind = self.remember(hash, name, value);
                literal(kind, name_index, name, value, out);
            }
        }
    }

    /// Puts a field into the table that comes again, or takes note of it.
    fn remember(&mut self, hash: u64, name: &[u8], value: &[u8]) -> Literal {
        if self.table.remember(hash, name, value) { Literal::Indexed } else { Literal::Plain }
    }

    /// The sum of the sizes of the table's entries.
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }

    /// The same, and how large the table may be.
    #[cfg(test)]
    pub(super) fn table_sizes(&self) -> (usize, usize) {
        self.table.sizes()
    }
}

#[inline(always)]
fn index(index: usize, out: &mut Vec<u8>) {
    integer::encode(index, 7, 0x80, out);
}

/// A field that is written out; `name_index` is that of its name in the static table, or 0.
#[inline(never)]
fn literal(kind: Literal, name_index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 16);
    match kind {
        Literal::Indexed => integer::encode(name_index, 6, 0x40, out),
        Literal::Plain => integer::encode(name_index, 4, 0, out),
        Literal::NeverIndexed => integer::encode(name_index, 4, 0x10, out),
    }
    if name_index == 0 {
        string(name, out);
    }
    string(value, out);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    integer::encode(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}
