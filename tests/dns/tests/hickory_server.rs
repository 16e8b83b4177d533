//! Why TCP and TLS are served by hand and not by hickory-server, as `docs/architecture.md` says: with our `answer` behind
//! its request handler, other bytes leave it. If this fails after an update of hickory-server, that choice is to be made
//! anew.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use maesh_dns::{Action, Snapshot, Transport, answer};
use maesh_dns_suite::{Probe, Responder, ask_tcp, probes};
use tokio::runtime;

/// Our `answer`, behind hickory-server.
struct Behind(Arc<Snapshot>);

#[async_trait::async_trait]
impl RequestHandler for Behind {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let mut reply = Vec::new();
        let action = answer(request.as_slice(), request.src().ip(), &self.0, Transport::Tcp, 0, &mut reply);
        assert!(action != Action::Drop, "hickory passes on what is a query");
        // A handler can only send records, which hickory-server encodes.
        let reply = Message::from_vec(&reply).expect("hickory reads what we write");
        let response = MessageResponseBuilder::new(&request.queries, reply.edns.as_ref()).build(
            reply.metadata,
            &reply.answers,
            &reply.authorities,
            [],
            &reply.additionals,
        );
        handle.send_response(response).await.expect("sent")
    }
}

/// hickory-server with our `answer`, on a port of its own.
async fn serve(snapshot: Arc<Snapshot>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let mut server = Server::new(Behind(snapshot));
    server.register_listener(listener, Duration::from_secs(30), 32);
    tokio::spawn(async move { server.block_until_done().await });
    address
}

#[test]
fn hickory_server_sends_other_bytes() {
    let us = Responder::start("127.0.0.1:0".parse().expect("an address"));
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let theirs = runtime.block_on(serve(us.snapshot()));
    let differs = |probe: &Probe| {
        let [ours, theirs] = [us.address(), theirs].map(|server| ask_tcp(server, &probe.query).expect("asked"));
        (ours != theirs).then_some((ours, theirs))
    };
    let (mut asked, mut different, mut without_question) = (0, 0, BTreeSet::new());
    for probe in probes().iter().filter(|probe| probe.tcp) {
        asked += 1;
        let Some((ours, theirs)) = differs(probe) else { continue };
        different += 1;
        let questions = |reply: &Option<Vec<u8>>| reply.as_ref().map_or(0, |reply| reply[5]);
        if questions(&ours) > questions(&theirs) {
            without_question.insert(probe.name.clone());
        }
    }
    assert!(different > asked / 2, "{different} of {asked} are different");
    // CoreDNS passes on no reply without the question. It never reaches our handler.
    for name in ["two OPT, TCP", "EDNS, half an option, TCP", "subnet of a family unknown, TCP"] {
        assert!(without_question.contains(name), "{name} is answered with its question now");
    }
}
