//! Any resource there can be, for property tests.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    NodeName, Resource, ServiceName,
    model::{
        AccessControl, AccessSource, Account, AccountAccess, Answer, Backend, Bind, Claim, Endpoint, EndpointHints,
        Endpoints, Grant, Listener, ListenerId, Mesh, Name, NamePort, PortEndpoints, Protocol, Proxy, Route, Scheme,
        Service, ServicePort, Transport, Workload, WorkloadKind,
    },
    policy::arbitrary as policy,
};

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9.ü-]{0,12}".prop_map(Into::into)
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    ("[a-z]{1,5}", "[a-z]{1,5}").prop_map(|(namespace, name)| ServiceName::new(namespace, name))
}

fn node() -> impl Strategy<Value = NodeName> {
    text().prop_map(NodeName)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Http), Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn mesh() -> impl Strategy<Value = Mesh> {
    let zone = "[a-z]{1,9}".prop_filter("reserved", |zone| zone != "local").prop_map(|zone| zone.parse().unwrap());
    let address = any::<(IpAddr, u16)>().prop_map(SocketAddr::from);
    let access = select(vec![AccessControl::Off, AccessControl::DryRun, AccessControl::On]);
    let range = (any::<IpAddr>(), 0..=32_u8).prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc());
    let source = (range, service_name())
        .prop_map(|(range, account)| AccessSource { range, account: Account::new(account.namespace, account.name) });
    let all = (vec(zone, 0..3), "[a-z.]{0,9}", any::<[bool; 2]>(), vec(address, 0..3), access, vec(source, 0..3));
    all.prop_map(|(zones, cluster_domain, flags, controllers, access, access_sources)| Mesh {
        zones,
        cluster_domain,
        fail_to_plain: flags[0],
        bypass: flags[1],
        access_control: access,
        access_sources,
        controllers,
    })
}

fn name() -> impl Strategy<Value = Name> {
    let answer = prop_oneof![
        Just(Answer::Node),
        Just(Answer::Plain),
        Just(Answer::Unserved),
        vec(any::<IpAddr>(), 0..3).prop_map(Answer::Fixed)
    ];
    let scheme = option::of(select(vec![Scheme::Http, Scheme::Https, Scheme::H2c]));
    let port = (any::<u16>(), protocol(), option::of(text()), any::<u16>(), scheme)
        .prop_map(|(number, protocol, name, listen, scheme)| NamePort { number, protocol, name, listen, scheme });
    (service_name(), answer, vec(any::<IpAddr>(), 0..3), any::<bool>(), vec(port, 0..3))
        .prop_map(|(service, answer, plain, headless, ports)| Name { service, answer, plain, headless, ports })
}

fn listener() -> impl Strategy<Value = Listener> {
    let bind = prop_oneof![Just(Bind::Shared), any::<IpAddr>().prop_map(Bind::Address)];
    let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
    let claim = || (text(), service_name()).prop_map(|(host, service)| Claim { host, service });
    let owner = option::of((service_name(), any::<u16>()));
    (bind, any::<u16>(), transport, owner, any::<bool>(), any::<bool>(), vec(claim(), 0..3), vec(claim(), 0..3))
        .prop_map(|(bind, port, transport, owner, http, tls, hosts, sni)| Listener {
            id: ListenerId::new(bind, port, transport),
            bind,
            port,
            transport,
            owner,
            http,
            tls,
            hosts,
            sni,
        })
}

fn service() -> impl Strategy<Value = Service> {
    let backend = (service_name(), any::<u16>(), any::<u32>()).prop_map(|(service, port, weight)| Backend {
        service,
        port,
        weight,
    });
    let route = vec(backend, 0..3).prop_map(|backends| Route { rule: None, backends, not_understood: None });
    let facts = (any::<u16>(), option::of(text()), protocol(), any::<bool>());
    let port = (facts, vec(route, 0..3), policy::called(), policy::backend()).prop_map(
        |((number, name, protocol, leaving), routes, called, backend)| ServicePort {
            number,
            name,
            protocol,
            leaving,
            routes,
            called: called.into(),
            backend: backend.into(),
        },
    );
    (service_name(), vec(port, 0..3)).prop_map(|(name, ports)| Service { name, ports })
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let endpoint =
        (any::<(IpAddr, u16)>(), any::<[bool; 3]>(), option::of(node()), vec(text(), 0..3), vec(node(), 0..3))
            .prop_map(|(address, flags, node, for_zones, for_nodes)| Endpoint {
                address: address.into(),
                ready: flags[0],
                serving: flags[1],
                terminating: flags[2],
                node,
                account: None,
                hints: EndpointHints::new(for_zones, for_nodes),
            });
    let account = || service_name().prop_map(|it| Arc::new(Account { namespace: it.namespace, name: it.name }));
    let grant = (text(), vec(account(), 0..3), vec(crate::rule::arbitrary(), 0..2))
        .prop_map(|(target, sources, rules)| Grant { target, sources, rules });
    let access = (account(), vec(grant, 0..3)).prop_map(|(account, grants)| AccountAccess { account, grants });
    let places = vec(option::of(0..3_u16), 4);
    let port = (any::<u16>(), protocol(), vec(endpoint, 0..4), vec(access, 0..3), (any::<bool>(), places)).prop_map(
        |(number, protocol, mut endpoints, access, (open, places))| {
            endpoints.iter_mut().zip(places).for_each(|(endpoint, place)| endpoint.account = place);
            PortEndpoints { number, protocol, endpoints, access, open }
        },
    );
    (service_name(), vec(port, 0..3)).prop_map(|(service, ports)| Endpoints { service, ports })
}

fn workload() -> impl Strategy<Value = Workload> {
    let kind = prop_oneof![
        Just(WorkloadKind::Pod),
        Just(WorkloadKind::Resolver),
        Just(WorkloadKind::Node),
        Just(WorkloadKind::PodRange)
    ];
    let place = (option::of(node()), option::of(text()));
    (any::<IpAddr>(), kind, option::of(text()), text(), option::of(text()), place).prop_map(
        |(address, kind, namespace, name, service_account, (node, zone))| Workload {
            address: IpNet::from(address.to_canonical()),
            kind,
            namespace,
            name,
            service_account,
            node,
            zone,
        },
    )
}

fn proxy() -> impl Strategy<Value = Proxy> {
    (
        "[a-z]{1,9}",
        node(),
        vec(any::<IpAddr>(), 0..3),
        any::<bool>(),
        vec(any::<u16>(), 0..4),
        vec((any::<u16>(), text()), 0..3),
    )
        .prop_map(|(id, node, addresses, ready, listening, failed)| Proxy {
            id: id.into(),
            node,
            addresses,
            ready,
            listening,
            failed,
        })
}

pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        mesh().prop_map(Resource::Mesh),
        name().prop_map(Resource::Name),
        listener().prop_map(Resource::Listener),
        service().prop_map(Resource::Service),
        endpoints().prop_map(Resource::Endpoints),
        workload().prop_map(Resource::Workload),
        proxy().prop_map(Resource::Proxy),
    ]
}
