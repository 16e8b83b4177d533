//! A proxy that hangs or whose pod is not ready: callers of its node are sent to another one.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE, await_condition,
    local::{Part, Roles},
    manifest::{save, service},
    resolver::ask,
};
use hickory_proto::rr::RecordType;

/// By then nobody is sent to a proxy that hangs. The bound of the contract is 6 s, and half as much again for slow machines.
const LEFT: Duration = Duration::from_secs(9);

fn pod(namespace: &str, name: &str, node: &str, address: IpAddr, ready: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec: {{nodeName: {node}}}\n\
         status:\n  podIP: {address}\n  conditions: [{{type: Ready, status: \"{ready}\"}}]\n"
    )
}

/// The roles, and a pod on node `n1` that asks.
fn start(folder: &Path) -> (Roles, IpAddr) {
    save(folder, "web.yaml", &service("shop", "web", 8080, ""));
    let roles = Roles::start(folder);
    let caller = roles.place(1, 1);
    save(folder, "caller.yaml", &pod("callers", "c", "n1", caller, "True"));
    await_answer(&roles, caller, Part::Proxy1);
    (roles, caller)
}

/// Waits until this proxy and no other is answered.
fn await_answer(roles: &Roles, caller: IpAddr, proxy: Part) {
    let want = [roles.address(proxy)];
    await_condition(&format!("{proxy:?} is answered"), || {
        let answer = ask(caller, roles.dns(), "web.shop.maesh", RecordType::A, PATIENCE).ok()?;
        (answer.addresses == want).then_some(())
    });
}

/// On a slow machine one of several tries is quick enough.
#[test]
fn a_proxy_that_hangs_is_answered_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (roles, caller) = start(folder.path());
    let mut took = Vec::new();
    for _ in 0..3 {
        let since = Instant::now();
        roles.signal(Part::Proxy1, "STOP");
        await_answer(&roles, caller, Part::Proxy2);
        took.push(since.elapsed());
        roles.signal(Part::Proxy1, "CONT");
        await_answer(&roles, caller, Part::Proxy1);
        if took.iter().any(|took| *took < LEFT) {
            println!("left after {took:?}");
            return;
        }
    }
    panic!("it was answered for {took:?}");
}

#[test]
fn a_proxy_whose_pod_is_not_ready_is_answered_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (roles, caller) = start(folder.path());
    for (ready, answered) in [("False", Part::Proxy2), ("True", Part::Proxy1)] {
        let proxy = pod("maesh", "proxy-1", "n1", roles.address(Part::Proxy1), ready);
        save(folder.path(), "proxy.yaml", &proxy);
        await_answer(&roles, caller, answered);
    }
}
