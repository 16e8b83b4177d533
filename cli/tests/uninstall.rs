//! `maesh uninstall` against a real API server, beside controllers that are not there or get no further.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use maesh_testkube::ApiServer;

fn uninstall(server: &ApiServer, namespace: &str) -> (bool, String) {
    let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    command.args(["uninstall", "--namespace", namespace, "--kubeconfig"]).arg(server.kubeconfig());
    command.args(["--takeover", "1s", "--horizon", "1s", "--dns-deadline", "1s", "--deadline", "40s"]);
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn it_does_by_itself_what_nobody_does() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let (done, text) = uninstall(&server, "default");
    assert!(done && text.contains("no controller answered within 1s"), "{text}");

    // A controller began, and died of something.
    let begun = "apiVersion: v1\nkind: Namespace\nmetadata: {name: maesh}\n---\n\
                 apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: maesh-uninstall\n  namespace: maesh\n  \
                 annotations: {maesh.containo.us/uninstall: waiting 45s}\n";
    server.apply(begun).unwrap();
    let (done, text) = uninstall(&server, "maesh");
    assert!(done && text.starts_with("waiting 45s\nthe controllers got no further within 2s"), "{text}");
    assert!(text.ends_with("done\nnothing leads to the mesh any more; its objects can be deleted\n"), "{text}");
}
