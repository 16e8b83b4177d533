//! The messages of Envoy's incremental aggregated discovery service, with its field numbers.
//!
//! Only the fields that either side uses are here; the others are skipped when they arrive.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// Name of the gRPC service.
pub const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
/// Path of its one method that is spoken here.
pub const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The name that stands for every resource of a type.
pub const WILDCARD: &str = "*";

/// What a subscriber says: subscriptions, and the answer to a response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; required in the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The type that this is about.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names wanted from now on.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names wanted no longer.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// What the subscriber has from an earlier stream: name and version.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// The response that this answers.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// The response was not, or not fully, put in force.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// What a server says: resources that changed or are gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// Where the server is; see the crate.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New or changed resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Their type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be repeated in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of resources that are gone, or never were.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Which server this is.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
}

/// One resource in a response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// Its version.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Type and bytes.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// Which server speaks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ControlPlane {
    /// Free text; ours is read by [`crate::Progress`].
    #[prost(string, tag = "1")]
    pub identifier: String,
}

/// Who subscribes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The group it belongs to.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// Anything else.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
    /// Name of its program.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// Version of its program.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// What the bytes are.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// A message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// For programs; [`Rejection`]s in ours.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// Our detail in the `error_detail` of an answer: one resource that was not put in force.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rejection {
    /// Name of the resource.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is wrong with it.
    #[prost(string, tag = "2")]
    pub message: String,
}

impl Rejection {
    /// The type's name as a detail.
    pub const TYPE_URL: &'static str = "type.maesh.io/maesh.v1.Rejection";
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// Its members.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// Which of the forms it has.
    #[prost(oneof = "value::Form", tags = "1, 2, 3, 4, 5, 6")]
    pub form: Option<value::Form>,
}

/// Forms of a [`Value`].
pub mod value {
    /// As in JSON.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Form {
        /// null
        #[prost(int32, tag = "1")]
        Null(i32),
        /// A number.
        #[prost(double, tag = "2")]
        Number(f64),
        /// A text.
        #[prost(string, tag = "3")]
        String(String),
        /// true or false
        #[prost(bool, tag = "4")]
        Bool(bool),
        /// An object.
        #[prost(message, tag = "5")]
        Struct(super::Struct),
        /// A list.
        #[prost(message, tag = "6")]
        List(super::ListValue),
    }
}

/// `google.protobuf.ListValue`
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListValue {
    /// Its elements.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self { form: Some(value::Form::String(text)) }
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self { form: Some(value::Form::Bool(truth)) }
    }
}

impl Value {
    /// A list of texts.
    pub fn texts(texts: impl IntoIterator<Item = String>) -> Self {
        Self { form: Some(value::Form::List(ListValue { values: texts.into_iter().map(Self::from).collect() })) }
    }

    /// Its text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.form {
            Some(value::Form::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Its truth, if it is a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self.form {
            Some(value::Form::Bool(truth)) => Some(truth),
            _ => None,
        }
    }

    /// The texts in it, if it is a list.
    pub fn as_texts(&self) -> impl Iterator<Item = &str> {
        let values = match &self.form {
            Some(value::Form::List(list)) => &list.values[..],
            _ => &[],
        };
        values.iter().filter_map(Self::as_text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = DeltaDiscoveryRequest::decode(&bytes[..]);
            let _ = DeltaDiscoveryResponse::decode(&bytes[..]);
        }
    }
}
