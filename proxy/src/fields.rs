//! What the way of a request asks of its fields, without a look-up for each question.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

/// Fields that the proxy adds to a request. They are written behind those of the caller and never join them in one map, which
/// would have to grow, and would hash the name of each.
pub(crate) type AddedFields = SmallVec<[(&'static HeaderName, HeaderValue); 6]>;

/// The value that a request leaves with in the field of this name: that of the proxy, or else the first of the caller.
pub(crate) fn leaving<'a>(
    name: &str,
    fields: &'a HeaderMap,
    added: &'a [(&'static HeaderName, HeaderValue)],
) -> Option<&'a HeaderValue> {
    let ours = added.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value);
    ours.or_else(|| fields.get(name))
}

/// A field, or a group of fields, that a step of the pipeline looks for.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub(crate) enum Sought {
    Accept = 1,
    Connection = 1 << 1,
    ContentType = 1 << 2,
    Expect = 1 << 3,
    Te = 1 << 4,
    TransferEncoding = 1 << 5,
    Upgrade = 1 << 6,
    /// Others that belong to one connection, such as `Keep-Alive`.
    HopByHop = 1 << 7,
    /// `Forwarded`, `X-Forwarded-*`, `X-Real-Ip` and `X-Maesh-*`, which the mesh sets, reads or removes.
    Mesh = 1 << 8,
    /// A name with an underscore.
    Underscore = 1 << 9,
}

/// Which of the sought fields a head has, seen in one pass when it arrives. One that was removed since may still be said to
/// be there; one that was added since may not be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Present(u16);

impl Present {
    /// Looks through the names of a head.
    pub(crate) fn of(fields: &HeaderMap) -> Self {
        Self(fields.keys().fold(0, |found, name| found | kind(name)))
    }

    /// Whether the head has it.
    pub(crate) fn has(self, sought: Sought) -> bool {
        self.0 & sought as u16 != 0
    }

    /// Whether the head has one of these.
    pub(crate) fn has_any(self, sought: &[Sought]) -> bool {
        sought.iter().any(|one| self.has(*one))
    }
}

fn kind(name: &HeaderName) -> u16 {
    let sought = match *name {
        header::ACCEPT => Sought::Accept,
        header::CONNECTION => Sought::Connection,
        header::CONTENT_TYPE => Sought::ContentType,
        header::EXPECT => Sought::Expect,
        header::TE => Sought::Te,
        header::TRANSFER_ENCODING => Sought::TransferEncoding,
        header::UPGRADE => Sought::Upgrade,
        header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => Sought::HopByHop,
        header::FORWARDED => Sought::Mesh,
        _ => return kind_of_other(name.as_str().as_bytes()),
    };
    sought as u16
}

/// Of a name that is none of HTTP's own, or none that is sought.
fn kind_of_other(name: &[u8]) -> u16 {
    let underscore = if name.contains(&b'_') { Sought::Underscore as u16 } else { 0 };
    let named = match name {
        b"keep-alive" | b"proxy-connection" | b"http2-settings" => Sought::HopByHop as u16,
        b"x-real-ip" => Sought::Mesh as u16,
        _ if name.starts_with(b"x-forwarded-") || name.starts_with(b"x-maesh-") => Sought::Mesh as u16,
        _ => 0,
    };
    underscore | named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_known_by_its_names() {
        let all = [
            (Sought::Accept, "accept"),
            (Sought::Connection, "connection"),
            (Sought::ContentType, "content-type"),
            (Sought::Expect, "expect"),
            (Sought::Te, "te"),
            (Sought::TransferEncoding, "transfer-encoding"),
            (Sought::Upgrade, "upgrade"),
            (Sought::HopByHop, "keep-alive"),
            (Sought::HopByHop, "proxy-connection"),
            (Sought::HopByHop, "http2-settings"),
            (Sought::HopByHop, "proxy-authorization"),
            (Sought::Mesh, "forwarded"),
            (Sought::Mesh, "x-forwarded-for"),
            (Sought::Mesh, "x-real-ip"),
            (Sought::Mesh, "x-maesh-hops"),
            (Sought::Underscore, "x_real_ip"),
        ];
        for (sought, name) in all {
            let mut fields = HeaderMap::new();
            fields.insert("host", HeaderValue::from_static("web"));
            fields.insert("x-request-id", HeaderValue::from_static("1"));
            assert!(all.iter().all(|(other, _)| !Present::of(&fields).has(*other)), "without {name}");
            fields.insert(name, HeaderValue::from_static("1"));
            for (other, _) in all {
                assert_eq!(Present::of(&fields).has(other), other as u16 == sought as u16, "{name}: {other:?}");
            }
        }
    }

    #[test]
    fn what_the_proxy_adds_comes_first() {
        static NAME: HeaderName = HeaderName::from_static("x-real-ip");
        let mut fields = HeaderMap::new();
        fields.insert("x-real-ip", HeaderValue::from_static("caller's"));
        fields.insert("a", HeaderValue::from_static("b"));
        let added = [(&NAME, HeaderValue::from_static("ours"))];
        assert_eq!(leaving("x-real-ip", &fields, &added).expect("there"), "ours");
        assert_eq!(leaving("x-real-ip", &fields, &[]).expect("there"), "caller's");
        assert_eq!(leaving("a", &fields, &added).expect("there"), "b");
        assert_eq!(leaving("c", &fields, &added), None);
    }
}
