//! What keeps callers and endpoints from taking all flows.

use super::*;

/// The address of a further Service, with this endpoint.
async fn another_service(fed: &Fed, live: &Echo) -> SocketAddr {
    let port = free_port();
    fed.define("other.shop", NUMBER, Protocol::Udp, policy(), Vec::new());
    fed.define_endpoints("other.shop", NUMBER, Protocol::Udp, vec![endpoint(live.address)]);
    fed.name("other.shop", NUMBER, port, Protocol::Udp, &[]).await;
    let listener = udp_listener(Bind::Address(LOCAL), port, "other.shop");
    assert_eq!(fed.push(Kind::Listener, vec![Resource::Listener(listener)], vec![]).await, Vec::new());
    SocketAddr::new(LOCAL, port)
}

/// A relay that is an endpoint and sends back to the proxy what it gets from there: every datagram comes again, from
/// another flow, for ever. The flows of its address are bounded, and other callers are served.
#[tokio::test]
async fn a_loop_through_a_relay_holds_no_more_than_one_callers_share() {
    let (live, relay_at) = (echo("one").await, IpAddr::from([127, 0, 0, 9]));
    let inside = socket(LOCAL).await;
    let (fed, address) = serving(few(20), policy(), &[inside.local_addr().expect("bound")]).await;
    let relay = tokio::spawn(async move {
        let mut bytes = [0; 100];
        while let Ok((length, _)) = inside.recv_from(&mut bytes).await {
            let outside = socket(relay_at).await;
            let _ = outside.send_to(&bytes[..length], address).await;
        }
    });
    Caller::from(IpAddr::from([127, 0, 0, 2]), address).await.say(b"round").await;
    until("it went round often", || metric(&fed, &of_service("received_datagrams")) > 100).await;
    assert!(metric(&fed, "maesh_udp_flows_open") <= 1 + 4 + 64, "a fifth of 20, and those that are closing");
    let other = another_service(&fed, &live).await;
    let caller = Caller::from(IpAddr::from([127, 0, 0, 3]), other).await;
    assert_eq!(caller.ask_until_answered("hello").await.0, "one");
    relay.abort();
}

/// A proxy with few flows.
fn few(flows: usize) -> Config {
    Config { limits: Limits { flows, ..Limits::default() }, ..config() }
}

#[tokio::test]
async fn a_noisy_caller_gives_up_its_own_flows() {
    let endpoint = echo("one").await;
    let (fed, address) = serving(few(20), policy(), &[endpoint.address]).await;
    let quiet_caller = IpAddr::from([127, 0, 0, 2]);
    let quiet = [Caller::from(quiet_caller, address).await, Caller::from(quiet_caller, address).await];
    let mut before = Vec::new();
    for caller in &quiet {
        before.push(caller.ask("before").await);
    }
    let mut noisy = Vec::new();
    for number in 0..100 {
        let caller = Caller::from(IpAddr::from([127, 0, 0, 3]), address).await;
        assert_eq!(caller.ask(&number.to_string()).await.0, "one", "each is served");
        noisy.push(caller);
    }
    for (caller, before) in quiet.iter().zip(&before) {
        assert_eq!(caller.ask("after").await, *before, "the flow is the same");
    }
    until("the others are closed", || metric(&fed, "maesh_udp_flows_open") == 2 + 4).await;
    assert_eq!(ended(&fed, "shed"), 96, "its share is a fifth of 20");
    assert_eq!(noisy[0].ask("once more").await.0, "one", "in a new flow");
}

#[tokio::test]
async fn forged_sources_do_not_exceed_the_table() {
    let endpoint = echo("one").await;
    let (fed, address) = serving(few(50), policy(), &[endpoint.address]).await;
    let early = Caller::from(IpAddr::from([127, 0, 9, 9]), address).await;
    let before = early.ask("before").await;
    for number in 0..500_u16 {
        let [high, low] = number.to_be_bytes();
        let caller = Caller::from(IpAddr::from([127, 1, high, low]), address).await;
        caller.say(b"forged").await;
        assert!(metric(&fed, "maesh_udp_flows_open") <= 50 + 64);
    }
    until("the rest is dropped", || dropped(&fed, "overloaded") == 451).await;
    assert_eq!(metric(&fed, "maesh_udp_flows_open"), 50);
    assert_eq!(early.ask("after").await, before, "who was there is served");
}

#[tokio::test]
async fn a_flood_to_an_endpoint_that_never_answers_leaves_others_served() {
    let (silent, live) = (socket(LOCAL).await, echo("one").await);
    let (fed, address) =
        serving(Config { workers: 1, ..config() }, policy(), &[silent.local_addr().expect("bound")]).await;
    let other = another_service(&fed, &live).await;
    let flood = tokio::spawn(async move {
        let caller = Caller::to(address).await;
        loop {
            let _ = caller.0.try_send(&[7; 1000]);
            tokio::task::yield_now().await;
        }
    });
    until("the flood has begun", || metric(&fed, &of_service("received_datagrams")) > 1_000).await;
    let caller = Caller::from(IpAddr::from([127, 0, 0, 2]), other).await;
    for number in 0..20 {
        assert_eq!(caller.ask_until_answered(&number.to_string()).await.0, "one");
    }
    flood.abort();
}

/// Its flows are busy all the time, and end all the same when others need their places, or their port is closed.
#[tokio::test]
async fn an_endpoint_that_never_stops_sending_does_not_hold_flows() {
    let endpoint = socket(LOCAL).await;
    let (fed, address) = serving(few(20), policy(), &[endpoint.local_addr().expect("bound")]).await;
    let sending = tokio::spawn(async move {
        let (mut callers, mut bytes) = (Vec::new(), [0; 1000]);
        loop {
            while let Ok((_, from)) = endpoint.try_recv_from(&mut bytes) {
                callers.push(from);
            }
            for caller in &callers {
                let _ = endpoint.try_send_to(&[7; 1000], *caller);
            }
            tokio::task::yield_now().await;
        }
    });
    let callers: [_; 6] = std::array::from_fn(|_| Caller::to(address));
    let mut opened = Vec::new();
    for caller in callers {
        let caller = caller.await;
        caller.say(b"begin").await;
        assert_eq!(caller.hear().await, [7; 1000]);
        opened.push(caller);
    }
    until("two of six are given up", || ended(&fed, "shed") == 2).await;
    let id = ListenerId::new(Bind::Address(LOCAL), address.port(), Transport::Udp).0;
    fed.push(Kind::Listener, vec![], vec![&id]).await;
    until("all are over", || metric(&fed, "maesh_udp_flows_open") == 0).await;
    sending.abort();
}
