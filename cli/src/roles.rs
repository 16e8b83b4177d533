//! The roles as processes of their own, as they run in a cluster.

pub mod controller;
pub mod dns;
pub mod keeper;
pub mod proxy;

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, bail};
use maesh_config::{Kind, NodeName};
use maesh_discovery::{
    Connect, Subscribed, SubscriberConfig, Timing, Token,
    tls::ClientTls,
    update::{Identity, Role},
};

use crate::{args::SubscribeArgs, version::VERSION};

/// Connects a role to its controllers. Must be called within a runtime.
///
/// # Errors
/// When the flags would send secrets, or take orders, over a network without encryption.
fn subscribe(
    args: &SubscribeArgs,
    role: Role,
    addresses: Vec<IpAddr>,
    wildcard: &[Kind],
    on_demand: &[Kind],
) -> anyhow::Result<Subscribed> {
    let tls = args.tls_ca.clone().map(|ca| ClientTls { ca, server_name: args.tls_server_name.clone() });
    if tls.is_none() && !args.insecure {
        for controller in &args.controller {
            if !is_loopback(controller) {
                bail!(
                    "the controller at {controller} is not on this machine, and without --tls-ca nothing proves that it \
                     is the controller; name the CA's file with --tls-ca, or accept the risk with --insecure"
                );
            }
        }
    }
    Ok(maesh_discovery::start(SubscriberConfig {
        identity: Identity {
            role,
            id: args.id.as_str().into(),
            node: args.node.as_deref().map(NodeName::from),
            addresses,
            version: VERSION.into(),
        },
        wildcard: wildcard.to_vec(),
        on_demand: on_demand.to_vec(),
        connect: Connect::Tcp { controllers: args.controller.clone(), tls },
        token: args.token_file.clone().map_or(Token::None, Token::File),
        state: state_file(args, role)?,
        timing: Timing::default(),
    }))
}

/// The file of the last good state, in a folder that exists.
fn state_file(args: &SubscribeArgs, role: Role) -> anyhow::Result<Option<PathBuf>> {
    let Some(folder) = &args.state_dir else { return Ok(None) };
    std::fs::create_dir_all(folder).with_context(|| {
        format!("cannot create {}; name a folder with --state-dir that can be written", folder.display())
    })?;
    let name = match role {
        Role::Dns => "dns.state",
        Role::Proxy => "proxy.state",
    };
    Ok(Some(folder.join(name)))
}

fn is_loopback(controller: &str) -> bool {
    let host = controller.rsplit_once(':').map_or(controller, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine() {
        for (controller, want) in [
            ("127.0.0.1:5390", true),
            ("[::1]:5390", true),
            ("localhost:5390", true),
            ("10.0.0.1:5390", false),
            ("maesh-controller.maesh:5390", false),
        ] {
            assert_eq!(is_loopback(controller), want, "{controller}");
        }
    }
}
