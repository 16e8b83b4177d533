//! `maesh dns status|install|uninstall|print` from outside: a real API server, CoreDNS as its pods.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../controller/tests/black_box/lab.rs"]
mod lab;

use std::{process::Command, thread, time::Duration};

use maesh_test_support::until;
use serde_json::Value;

use self::lab::{COREFILE, Lab};

/// Exit code, standard output, standard error.
fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn dns(lab: &Lab, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = lab.command(env!("CARGO_BIN_EXE_maesh"));
    command.arg("dns").args(arguments);
    run(command)
}

fn json(lab: &Lab, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, out, err) = dns(lab, &[arguments, &["-o", "json"]].concat());
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}{err}")))
}

#[test]
#[ignore = "long: CoreDNS looks at its Corefile every two seconds at best"]
fn a_person_installs_sees_and_removes_the_stanza() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let (code, out, _) = dns(&lab, &["status"]);
    assert!(code == Some(1) && out.contains("coredns, key Corefile: absent"), "{out}");
    assert!(out.contains("Put it there: maesh dns install"), "{out}");
    let block =
        "maesh:53 traefik.mesh:53 {\n    errors\n    rewrite edns0 subnet set 32 128\n    forward . 10.96.0.53\n}\n";
    let (code, out, err) = dns(&lab, &["print"]);
    assert_eq!((code, out.as_str()), (Some(0), block));
    assert!(err.contains("# for ConfigMap kube-system/coredns, key Corefile"), "{err}");

    let (code, installed) = json(&lab, &["install"]);
    assert_eq!((code, &installed["state"]), (Some(0), &"live".into()), "{installed}");
    assert!(lab.corefile().contains(block) && lab.corefile().ends_with(COREFILE));
    assert_eq!(lab.ask("10.96.0.10", "web.shop.maesh"), "10.1.2.3");
    let (code, status) = json(&lab, &["status"]);
    assert_eq!((code, &status["good"], &status["files"][0]["state"]), (Some(0), &true.into(), &"present".into()));
    assert_eq!(status["servers"].as_array().unwrap().len(), 3, "{status}");
    let (code, again) = json(&lab, &["install"]);
    assert_eq!((code, &again["state"]), (Some(0), &"unchanged".into()));

    let (code, removed) = json(&lab, &["uninstall"]);
    assert_eq!((code, &removed["state"]), (Some(0), &"removed".into()), "{removed}");
    assert_eq!(lab.corefile(), COREFILE);
    let (code, again) = json(&lab, &["uninstall"]);
    assert_eq!((code, &again["state"]), (Some(0), &"absent".into()));

    // Who deleted the namespace first can still take the stanza out.
    let (code, installed) = json(&lab, &["install"]);
    assert_eq!(code, Some(0), "{installed}: {}", lab.log());
    lab.kubectl(&["--namespace", "maesh", "delete", "service", "maesh-dns"]);
    assert_eq!(json(&lab, &["uninstall", "--deadline", "0s"]).0, Some(0));
    assert_eq!(lab.corefile(), COREFILE);
    let (code, _, err) = dns(&lab, &["install"]);
    assert!(code == Some(1) && err.contains("Service maesh/maesh-dns of the mesh's dns has no address"), "{err}");
}

#[test]
#[ignore = "long: a server that fails does so for eight seconds"]
fn a_server_that_is_replaced_meanwhile_is_no_harm() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    thread::scope(|scope| {
        let installing = scope.spawn(|| json(&lab, &["install"]));
        assert!(until(Duration::from_secs(30), || lab.corefile().contains("# maesh begin")));
        lab.replace_pod();
        assert!(!until(Duration::from_secs(14), || installing.is_finished()), "it looks on");
        lab.hold_files(false);
        let (code, installed) = installing.join().unwrap();
        assert_eq!((code, &installed["state"]), (Some(0), &"live".into()), "{installed}: {}", lab.log());
    });
}

/// `uninstall` while a controller runs that keeps the stanza: it would be back within seconds.
#[test]
fn a_stanza_that_a_controller_writes_again_is_not_called_removed() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    lab.apply(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: maesh-controller, namespace: maesh}\n---\napiVersion: v1\n\
         kind: Pod\nmetadata: {name: maesh-controller-1, namespace: maesh, labels: {app.kubernetes.io/name: maesh, \
         app.kubernetes.io/component: controller}}\nspec: {serviceAccountName: maesh-controller, nodeName: n1, containers: \
         [{name: a, image: a, args: [controller, --coredns-mode=auto]}]}\n",
    );
    let (_, block, _) = dns(&lab, &["print"]);
    lab.write_corefile(&(block.clone() + COREFILE));
    let (code, kept) = json(&lab, &["uninstall"]);
    assert_eq!((code, &kept["state"]), (Some(1), &"kept".into()), "{kept}");
    let message = kept["message"].as_str().unwrap();
    assert!(message.contains("pod maesh-controller-1 writes it again"), "{message}");
    assert!(message.contains("--set coredns.mode=manual"), "{message}");
    assert_eq!(lab.corefile(), COREFILE, "it is taken out all the same");

    // The emergency exit: without the right, the controller writes nothing.
    lab.kubectl(&["--namespace", "kube-system", "delete", "rolebinding", "maesh"]);
    assert!(until(Duration::from_secs(20), || {
        lab.write_corefile(&(block.clone() + COREFILE));
        let (code, removed) = json(&lab, &["uninstall"]);
        code == Some(0) && removed["state"] == "removed" && lab.corefile() == COREFILE
    }));
}

#[test]
fn a_corefile_that_is_not_understood_is_left_alone() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    for (corefile, want) in [
        (".:53 {\n    errors\n", "line 1: the block that begins here is not closed"),
        (
            ".:53 {\n}\nmaesh {\n    forward . 1.1.1.1\n}\n",
            "line 3: zone maesh is served by a block that is not the mesh's",
        ),
    ] {
        lab.write_corefile(corefile);
        let (code, _, err) = dns(&lab, &["install"]);
        assert!(code == Some(1) && err.contains(want) && err.contains("It was left as it is"), "{err}");
        assert_eq!(lab.corefile(), corefile);
        let (code, out, err) = dns(&lab, &["uninstall", "--deadline", "0s"]);
        assert_eq!((code, lab.corefile().as_str()), (Some(0), corefile), "{out}{err}");
    }
}

#[test]
fn the_stanza_is_printed_without_a_cluster_and_the_role_stays_what_it_was() {
    let maesh = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maesh"));
        command.args(arguments).env_remove("KUBECONFIG");
        run(command)
    };
    let (code, out, err) =
        maesh(&["dns", "print", "--forward", "fd00::53", "--port", "8053", "--zone", "mesh.example"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("mesh.example:8053 {") && out.contains("forward . fd00::53\n"), "{out}");
    let (code, _, err) = maesh(&["dns"]);
    assert!(code == Some(2) && err.contains("--id"), "{err}");
    let (code, _, err) = maesh(&["dns", "--listen", "127.0.0.1:0"]);
    assert!(code == Some(2) && err.contains("--id"), "{err}");
}
