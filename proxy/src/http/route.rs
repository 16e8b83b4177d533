//! Which Service a request is for.
//!
//! The listener's port decides the port; `Host` decides the Service, and only on shared ports. Pure but for look-ups in
//! the directory.

use std::{net::IpAddr, sync::Arc};

use maesh_config::model::Protocol;

use crate::{
    host::Host,
    reason::Reason,
    state::{Claims, Facts, MeshFacts, ServiceEntry, Shared},
};

/// What a host can mean.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    /// `service.namespace`, said so that nothing else can be meant.
    Service(&'a str),
    /// `service.namespace`, or a name of the world outside that a route claims.
    ServiceOrClaim(&'a str),
    /// A Service of the caller's own namespace, or a claim.
    Single(&'a str),
    /// An address.
    Address(IpAddr),
    /// Only a claim can give it a meaning.
    Claim(&'a str),
    /// A name in a mesh zone or the cluster domain that cannot be a Service's.
    Nothing,
}

fn meaning<'a>(host: &'a str, mesh: &MeshFacts) -> Meaning<'a> {
    let service = |rest: &'a str| match rest.split_once('.') {
        Some((name, namespace)) if !name.is_empty() && !namespace.is_empty() && !namespace.contains('.') => {
            Meaning::Service(rest)
        }
        _ => Meaning::Nothing,
    };
    if let Some(rest) = mesh.zones.iter().find_map(|zone| host.strip_suffix(&**zone)) {
        return service(rest);
    }
    if let Some(rest) = host.strip_suffix(&*mesh.cluster).or_else(|| host.strip_suffix(".svc")) {
        return service(rest);
    }
    if (host.as_bytes()[0].is_ascii_digit() || host.contains(':'))
        && let Ok(address) = host.parse::<IpAddr>()
    {
        return Meaning::Address(address.to_canonical());
    }
    match host.bytes().filter(|byte| *byte == b'.').count() {
        0 => Meaning::Single(host),
        1 => Meaning::ServiceOrClaim(host),
        _ => Meaning::Claim(host),
    }
}

/// The Service that a request with this `Host` names on a listener, and the number of its port that listens there.
pub(crate) fn named(
    shared: &Shared,
    facts: &Facts,
    host: Option<&[u8]>,
    caller: IpAddr,
) -> Result<(Arc<ServiceEntry>, u16), Reason> {
    let parsed = host.map(|host| Host::parse(host).ok_or(Reason::BadRequest)).transpose()?;
    if let Some((service, number)) = &facts.owner {
        let called = shared.directory.named(service).ok_or_else(|| shared.unknown())?;
        return Ok((called, *number));
    }
    let host = parsed.ok_or(Reason::UnknownHost)?;
    let called = find(shared, &facts.hosts, &host, caller)?;
    let number = port_on(&called, facts.port, Protocol::Http).ok_or(Reason::NoRoute)?;
    Ok((called, number))
}

/// Finds the Service that `host` means on a shared port whose claims are `claims`.
pub(crate) fn find(
    shared: &Shared,
    claims: &Claims,
    host: &Host<'_>,
    caller: IpAddr,
) -> Result<Arc<ServiceEntry>, Reason> {
    let mesh = shared.mesh.load();
    let claimed = |host: &str| claims.find(host).and_then(|service| shared.directory.service(service));
    let found = match meaning(host.as_str(), &mesh) {
        // A service can claim names of its own; they already mean it.
        Meaning::Service(name) => shared.directory.named(name),
        Meaning::ServiceOrClaim(name) => shared.directory.named(name).or_else(|| claimed(name)),
        Meaning::Single(name) => in_own_namespace(shared, name, caller).or_else(|| claimed(name)),
        Meaning::Address(address) => shared.directory.at(address).or_else(|| claimed(host.as_str())),
        Meaning::Claim(name) => claimed(name),
        Meaning::Nothing => None,
    };
    found.ok_or_else(|| shared.unknown())
}

fn in_own_namespace(shared: &Shared, name: &str, caller: IpAddr) -> Option<Arc<ServiceEntry>> {
    let workload = shared.workloads.at(caller)?;
    shared.directory.named(&format!("{name}.{}", workload.namespace.as_ref()?))
}

/// The port of `called` that a shared listener on `listen` serves.
pub(crate) fn port_on(called: &ServiceEntry, listen: u16, protocol: Protocol) -> Option<u16> {
    let facts = called.facts.load();
    facts.ports.iter().find(|port| port.listen == listen && port.protocol == protocol).map(|port| port.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh() -> MeshFacts {
        MeshFacts {
            zones: vec![".maesh".into(), ".traefik.mesh".into()],
            cluster: ".svc.cluster.local".into(),
            access_control: maesh_config::model::AccessControl::Off,
            access_sources: Vec::new(),
        }
    }

    #[test]
    fn meanings() {
        for (host, want) in [
            ("web.shop.maesh", Meaning::Service("web.shop")),
            ("web.shop.traefik.mesh", Meaning::Service("web.shop")),
            ("web.shop.svc", Meaning::Service("web.shop")),
            ("web.shop.svc.cluster.local", Meaning::Service("web.shop")),
            ("web.shop", Meaning::ServiceOrClaim("web.shop")),
            ("web", Meaning::Single("web")),
            ("a.web.shop.maesh", Meaning::Nothing),
            ("shop.maesh", Meaning::Nothing),
            ("10.96.0.1", Meaning::Address(IpAddr::from([10, 96, 0, 1]))),
            ("www.example.com", Meaning::Claim("www.example.com")),
            ("1.shop", Meaning::ServiceOrClaim("1.shop")),
        ] {
            assert_eq!(meaning(host, &mesh()), want, "{host}");
        }
    }
}
