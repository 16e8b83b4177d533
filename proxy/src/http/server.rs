//! A caller's connection: bytes become exchanges, and each gets exactly one response.
//!
//! [`h1`] and [`h2`] read requests and write responses; [`io`] is the socket below them. What happens in between is the
//! [`pipeline`](super::pipeline)'s.

mod body;
mod h1;
mod h2;
#[cfg(feature = "instructions")]
pub(crate) mod instructions;
mod io;
mod linger;

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;
use tokio::net::TcpStream;

pub(crate) use self::{
    body::RequestBody,
    h2::{Received, StreamEntry},
    io::CallerIo,
};
use super::caller::Caller;

/// Serves HTTP on a connection of which `first` was already read, until it ends. A connection that leaves HTTP ends with
/// what it carries then.
pub(crate) async fn serve(stream: TcpStream, first: Bytes, caller: Arc<Caller>) {
    let id = caller.worker.enlist(caller.clone());
    let io = CallerIo::new(stream, first, caller.clone());
    if caller.http2 {
        h2::serve(io, &caller).await;
    } else {
        h1::serve(io, &caller).await;
    }
    caller.worker.discharge(id);
}

thread_local! {
    /// The value of `Date`, and until when it is used.
    static DATE: RefCell<Option<(Instant, HeaderValue)>> = const { RefCell::new(None) };
}

/// The value of `Date` now, to within a second.
fn date() -> HeaderValue {
    DATE.with_borrow_mut(|date| {
        let now = Instant::now();
        if let Some((until, value)) = date
            && now < *until
        {
            return value.clone();
        }
        let value = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()));
        let value = value.unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
        *date = Some((now + Duration::from_secs(1), value.clone()));
        value
    })
}
