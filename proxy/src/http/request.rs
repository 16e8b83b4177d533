//! A request on its way through the pipeline.

use http::request;

use super::server::RequestBody;
use crate::fields::{AddedFields, Present};

/// A request, as the steps of the pipeline see and change it.
///
/// It is boxed once, when its head has arrived, and stays where it is: a head has more than 200 bytes, and each step that
/// took it by value would copy them and make the task of every request larger.
pub(crate) struct ProxiedRequest {
    /// Method, target and fields.
    pub(crate) head: request::Parts,
    /// Which fields it arrived with.
    pub(crate) present: Present,
    /// Fields with which it leaves besides those of its head.
    pub(crate) added: AddedFields,
    /// What the caller sends, as far as nobody has taken it.
    pub(crate) body: RequestBody,
}

impl ProxiedRequest {
    /// A request whose head has just arrived.
    pub(crate) fn new(head: request::Parts, present: Present, body: RequestBody) -> Box<Self> {
        Box::new(Self { head, present, added: AddedFields::new(), body })
    }

    /// Takes the body; `None` when there is none.
    pub(super) fn take_body(&mut self) -> Option<RequestBody> {
        (!http_body::Body::is_end_stream(&self.body)).then(|| self.body.take())
    }
}
