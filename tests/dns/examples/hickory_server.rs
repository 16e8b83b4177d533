//! hickory-server with the zone of the bench, as its own library of zones serves it.
//!
//! `hickory_server LISTEN COUNT` answers A queries for COUNT names `service-I.bench.maesh`, over UDP and TCP, with one
//! thread. It runs until it is ended by a signal.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::rdata::{A, NS, SOA};
use hickory_proto::rr::{Name, RData, Record};
use hickory_server::server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

/// Seconds that an answer may be kept, as in the other servers' zones.
const TTL: u32 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, count] = &arguments[..] else { return Err("usage: hickory_server LISTEN COUNT".into()) };
    let (listen, count) = (listen.parse()?, count.parse()?);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(listen, count))
}

async fn serve(listen: SocketAddr, count: u32) -> Result<(), Box<dyn Error>> {
    let mut catalog = Catalog::new();
    let zone = Name::from_ascii("maesh.")?;
    catalog.upsert(zone.clone().into(), vec![Arc::new(records(&zone, count)?)]);
    let mut server = Server::new(catalog);
    server.register_socket(UdpSocket::bind(listen).await?);
    server.register_listener(TcpListener::bind(listen).await?, Duration::from_secs(30), 32);
    Ok(server.block_until_done().await?)
}

fn records(zone: &Name, count: u32) -> Result<InMemoryZoneHandler, Box<dyn Error>> {
    let mut handler = InMemoryZoneHandler::empty(zone.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    let name = |text: &str| Name::from_ascii(text);
    let (server, master) = (name("ns.dns.maesh.")?, name("hostmaster.maesh.")?);
    let mut add = |owner: Name, data: RData| handler.upsert_mut(Record::from_rdata(owner, TTL, data), 1);
    add(zone.clone(), RData::SOA(SOA::new(server.clone(), master, 1, 7200, 1800, 86400, TTL)));
    add(zone.clone(), RData::NS(NS(server.clone())));
    add(server, RData::A(A(Ipv4Addr::LOCALHOST)));
    for number in 0..count {
        add(name(&format!("service-{number}.bench.maesh."))?, RData::A(A(Ipv4Addr::new(10, 244, 0, 2))));
    }
    Ok(handler)
}
