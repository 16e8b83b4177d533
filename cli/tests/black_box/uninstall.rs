//! `maesh uninstall` against a real API server, beside controllers that are not there or get no further.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use maesh_testkube::ApiServer;

/// Whether `maesh uninstall` succeeds, and what it prints: why, where it fails.
fn uninstall(server: &ApiServer, namespace: &str) -> (bool, String) {
    let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    command.args(["uninstall", "--namespace", namespace, "--kubeconfig"]).arg(server.kubeconfig());
    command.args(["--takeover", "1s", "--horizon", "1s", "--dns-deadline", "1s", "--deadline", "40s"]);
    let output = command.output().unwrap();
    let done = output.status.success();
    let text = if done { output.stdout } else { [output.stdout, output.stderr].concat() };
    (done, String::from_utf8(text).unwrap())
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

/// `helm template | kubectl apply` makes the objects of all hooks at once, the Job of an uninstallation too.
#[test]
fn it_refuses_to_act_where_the_hooks_were_applied() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let configs = |names: &[&str]| {
        let object = |name: &&str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n---\n");
        names.iter().map(object).collect::<String>()
    };
    let delete = |name: &str| {
        let output = server.kubectl().args(["delete", "configmap", name]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    server.apply(&configs(&["maesh-uninstall", "maesh-uninstall-applied"])).unwrap();
    let (done, text) = uninstall(&server, "default");
    assert!(!done && text.contains("no uninstallation is under way"), "{text}");
    assert!(!text.contains("taking the stanza out"), "{text}");

    // A controller saw both. That one of them was deleted since begins nothing.
    delete("maesh-uninstall-applied");
    let patch = r#"{"metadata":{"annotations":{"maesh.containo.us/uninstall":"refused: hooks were applied"}}}"#;
    let output = server.kubectl().args(["patch", "configmap", "maesh-uninstall", "--type=merge", "-p", patch]).output();
    assert!(output.unwrap().status.success());
    let (done, text) = uninstall(&server, "default");
    assert!(!done && text.contains("refused: hooks were applied"), "{text}");

    // Without either of them, it is what it says it is.
    delete("maesh-uninstall");
    let (done, text) = uninstall(&server, "default");
    assert!(done, "{text}");
}
