//! Manifests over the objects of a real API server.

use maesh_testkube::ApiServer;

use super::*;
use crate::support::api::Api;

fn over(server: &ApiServer, kubeconfig: &Path, folder: &Path) -> (Value, Option<i32>) {
    let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    command.args(["analyze", ".", "--cluster", "-o", "json", "--kubeconfig"]).arg(kubeconfig).current_dir(folder);
    let output = command.env_remove("KUBERNETES_SERVICE_HOST").output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (report, output.status.code())
}

#[test]
fn the_objects_of_the_cluster_count_too() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let there =
        service("default", "there", 8080, "maesh.containo.us/traffic-type: pigeon").replace("10.96.0.77", "10.96.0.78");
    let authorities =
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: authorities, namespace: default}\ndata: {ca.crt: x}\n";
    server.apply(&(there.clone() + authorities)).unwrap();
    let route = |target: &str| {
        service(
            "default",
            &format!("to-{target}"),
            8080,
            &format!("maesh.containo.us/routes: 'PathPrefix(`/x`) => {target}'"),
        )
    };
    let tls = |map: &str| {
        let annotations = format!("maesh.containo.us/scheme: https, maesh.containo.us/tls-ca: {map}");
        service("default", &format!("by-{map}"), 8080, &annotations)
    };
    let all = [route("there"), route("nowhere"), tls("authorities"), tls("missing")].join("---\n");
    let folder = folder_with(&all);
    let names = |report: &Value| -> BTreeSet<String> {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.map(|finding| finding["object"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (alone, _) = report(folder.path(), &["."]);
    assert_eq!(names(&alone), ["by-authorities", "by-missing", "to-nowhere", "to-there"].map(str::to_owned).into());
    assert_eq!(alone["notes"].as_array().unwrap().len(), 1, "{alone}");

    let (both, code) = over(&server, server.kubeconfig(), folder.path());
    // That what is in authorities is no certificate is said of it by name; that of the cluster's own Service is old.
    assert_eq!(names(&both), ["by-authorities", "by-missing", "to-nowhere"].map(str::to_owned).into(), "{both}");
    let absent: BTreeSet<_> = both["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["absent"] == true)
        .map(|it| it["object"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(absent, ["by-missing", "to-nowhere"].into());
    assert_eq!((code, &both["notes"]), (Some(79), &json!([])));

    let nobody = server.kubeconfig_for("nobody", &[]).unwrap();
    let (refused, _) = over(&server, &nobody, folder.path());
    let notes: Vec<_> = refused["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    let of_services = |note: &&&str| note.starts_with("services of the cluster were not read, and count as absent");
    assert!(notes.iter().any(|note| of_services(&note) && note.contains("list services")), "{notes:#?}");
    assert!(names(&refused).contains("to-there"), "{refused}");
}

#[test]
fn a_refused_token_is_no_empty_cluster() {
    let api = Api::refusing("expired");
    let folder = folder_with(&service("default", "web", 8080, ""));
    let output = command(&["analyze", "--cluster", "--kubeconfig"]).arg(api.kubeconfig()).arg(folder.path()).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{said}");
    assert!(said.contains("Unauthorized; the API server does not know you; check the credentials"), "{said}");
}
