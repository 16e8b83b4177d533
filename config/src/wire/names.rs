use super::{
    DecodeError,
    codes::{ip_bytes, ips, port, protocol, protocol_code, service_name},
};
use crate::model;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Name {
    #[prost(string, tag = "1")]
    service: String,
    /// 1 node, 2 fixed, 3 plain; see `unserved`.
    #[prost(int32, tag = "2")]
    answer: i32,
    #[prost(bytes = "vec", repeated, tag = "3")]
    fixed: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    plain: Vec<Vec<u8>>,
    #[prost(bool, tag = "5")]
    headless: bool,
    #[prost(message, repeated, tag = "6")]
    ports: Vec<NamePort>,
    /// With answer 3: no proxy serves it. A reader that does not know this field answers the plain addresses.
    #[prost(bool, tag = "7")]
    unserved: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamePort {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(int32, tag = "2")]
    protocol: i32,
    #[prost(string, optional, tag = "3")]
    name: Option<String>,
    #[prost(uint32, tag = "4")]
    listen: u32,
    /// A reader that does not know it speaks HTTP/1.1 to the plain address.
    #[prost(int32, tag = "5")]
    scheme: i32,
}

impl From<&model::Name> for Name {
    fn from(name: &model::Name) -> Self {
        let (answer, fixed) = match &name.answer {
            model::Answer::Node => (1, &[][..]),
            model::Answer::Fixed(addresses) => (2, &addresses[..]),
            model::Answer::Plain | model::Answer::Unserved => (3, &[][..]),
        };
        Self {
            service: name.service.to_string(),
            answer,
            fixed: fixed.iter().copied().map(ip_bytes).collect(),
            plain: name.plain.iter().copied().map(ip_bytes).collect(),
            headless: name.headless,
            unserved: name.answer == model::Answer::Unserved,
            ports: name.ports.iter().map(NamePort::from).collect(),
        }
    }
}

impl TryFrom<Name> for model::Name {
    type Error = DecodeError;

    fn try_from(name: Name) -> Result<Self, DecodeError> {
        Ok(Self {
            service: service_name(&name.service, "service")?,
            answer: match name.answer {
                1 => model::Answer::Node,
                2 => model::Answer::Fixed(ips(name.fixed, "fixed address")?),
                3 if name.unserved => model::Answer::Unserved,
                3 => model::Answer::Plain,
                value => return Err(DecodeError::Unknown { field: "answer", value }),
            },
            plain: ips(name.plain, "plain address")?,
            headless: name.headless,
            ports: name.ports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&model::NamePort> for NamePort {
    fn from(it: &model::NamePort) -> Self {
        Self {
            number: it.number.into(),
            protocol: protocol_code(it.protocol),
            name: it.name.as_deref().map(str::to_owned),
            listen: it.listen.into(),
            scheme: it.scheme.map_or(0, model::Scheme::code),
        }
    }
}

impl TryFrom<NamePort> for model::NamePort {
    type Error = DecodeError;

    fn try_from(it: NamePort) -> Result<Self, DecodeError> {
        Ok(Self {
            number: port(it.number, "port number")?,
            protocol: protocol(it.protocol)?,
            name: it.name.map(Into::into),
            listen: port(it.listen, "listen port")?,
            scheme: model::Scheme::of_code(it.scheme),
        })
    }
}
