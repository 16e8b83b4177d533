//! Heads on their way to an endpoint and back, for [`crate::instructions`].

use std::hint::black_box;

use bytes::BytesMut;
use http::{Method, Request};

use super::{
    head::{self, ResponseLimits},
    request::{self, RequestFraming},
};
use crate::fields::AddedFields;
use crate::instructions::{Part, Step};

/// The parts.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "HTTP/1.1: write a request's head", prepare: writing },
    Part { name: "HTTP/1.1: read a response's head", prepare: reading },
];

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nserver: nginx\r\ndate: Fri, 01 Jan 2027 00:00:00 GMT\r\n\
    content-type: application/json\r\ncontent-length: 16\r\nconnection: keep-alive\r\netag: \"65920080-10\"\r\n\
    x-request-id: 5f2b7c1e-8d3a-4c7e-9a54-0d1f6b2c3e4a\r\ncache-control: no-store\r\n\r\n0123456789abcdef";

/// With the fields that the proxy adds.
fn writing() -> Step {
    let mut head = Request::post("/api/items/16?page=2");
    for (name, value) in [
        ("host", "web-16.shop.maesh"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "application/json, text/plain, */*"),
        ("content-type", "application/json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-forwarded-for", "10.1.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", "80"),
        ("x-forwarded-host", "web-16.shop.maesh"),
        ("x-real-ip", "10.1.0.1"),
        ("x-maesh-hops", "1"),
    ] {
        head = head.header(name, value);
    }
    let (head, ()) = head.body(()).expect("a request").into_parts();
    let added = AddedFields::new();
    Box::new(move |counted| {
        counted(&mut || {
            let mut out = Vec::new();
            request::head(black_box(&head), &added, RequestFraming::Length(512), &mut out);
            black_box(&out);
        });
    })
}

/// With its body behind it.
fn reading() -> Step {
    let limits = ResponseLimits { bytes: 64 * 1024, fields: 1024 };
    Box::new(move |counted| {
        let mut buffer = BytesMut::from(RESPONSE);
        counted(&mut || {
            let head = head::parse(&mut buffer, &limits, &Method::GET);
            assert!(black_box(head).is_ok_and(|head| head.is_some_and(|head| head.keep_alive)));
        });
    })
}
