//! Which Services the mesh carries.
//!
//! The compiler decides, with the settings of the controller: a reading of annotations of our own would miss prefixes,
//! defaults of Namespaces, and values.

use std::time::Instant;

use clap::ValueEnum as _;
use maesh_compiler::{
    compile::{Addressing, Compiler, Config, explain::Question},
    event::Event,
    kinds::ObjectKind,
};
use serde_json::Value;

use crate::{
    args::{MeshArgs, Mode},
    check::{name, text},
    mesh,
};

/// The settings with which the pods of the mesh in `namespace` are started, as far as they decide what is carried.
///
/// # Errors
/// When a setting asks for what this version does not have.
pub fn settings(pods: &[Value], namespace: &str) -> anyhow::Result<Config> {
    let containers = pods.iter().flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten());
    let arguments: Vec<&str> = containers
        .flat_map(|container| container["args"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let is_set = |flag: &str| arguments.contains(&flag);
    let values = |flag: &str| {
        let said = arguments.iter().filter_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='));
        said.flat_map(|value| value.split(',')).map(str::to_owned).collect::<Vec<_>>()
    };
    let defaults = MeshArgs::default();
    let first = |flag: &str| values(flag).into_iter().next();
    let default_mode = first("--default-mode").and_then(|mode| Mode::from_str(&mode, true).ok());
    let ports_per_namespace = first("--ports-per-namespace").and_then(|ports| ports.parse().ok());
    let args = MeshArgs {
        watch_namespace: values("--watch-namespace"),
        ignore_namespace: values("--ignore-namespace"),
        require_annotation: is_set("--require-annotation"),
        bypass: is_set("--bypass"),
        namespace: namespace.to_owned(),
        default_mode: default_mode.unwrap_or(defaults.default_mode),
        ports_per_namespace: ports_per_namespace.unwrap_or(defaults.ports_per_namespace),
        ..defaults
    };
    mesh::compiler_config(&args, Addressing::Cluster)
}

/// Of each of `services`, why callers of its mesh name do not come through proxies; `None` where they do.
pub fn reasons_against(services: &[Value], namespaces: &[Value], settings: Config) -> Vec<Option<String>> {
    let mut compiler = Compiler::new(settings);
    let door = compiler.door();
    let mut take = |kind: ObjectKind, object: &Value| match kind.registration().read(object, &door) {
        Ok((object, _)) => {
            compiler.take(Event::Apply(object));
            None
        }
        Err(bad) => Some(bad.to_string()),
    };
    for namespace in namespaces {
        take(ObjectKind::Namespace, namespace);
    }
    let unread: Vec<Option<String>> = services.iter().map(|service| take(ObjectKind::Service, service)).collect();
    compiler.compile(Instant::now());
    let why = |(service, unread): (&Value, Option<String>)| match unread {
        Some(bad) => Some(format!("{} cannot be read: {bad}", said(service))),
        None => reason_against(&compiler, service),
    };
    services.iter().zip(unread).map(why).collect()
}

fn reason_against(compiler: &Compiler, service: &Value) -> Option<String> {
    let of = format!("{}/{}", text(service, "/metadata/namespace"), name(service));
    let known = compiler.explain(&Question { name: of, from: None });
    let who = said(service);
    match known.meshed {
        None => Some(known.not_meshed.unwrap_or_else(|| format!("{who} is not in the mesh"))),
        Some(meshed) if meshed.bypass_all => Some(format!("{who} is bypassed, as the whole mesh is")),
        Some(meshed) if meshed.bypass => Some(format!("{who} is bypassed by its annotation")),
        Some(meshed) if meshed.ports.is_empty() => Some(format!("{who} has no port that the mesh carries")),
        Some(_) => None,
    }
}

/// A Service, as people call it.
pub fn said(service: &Value) -> String {
    format!("Service {}/{}", text(service, "/metadata/namespace"), name(service))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, annotations: Value, spec: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": "web", "annotations": annotations}, "spec": spec})
    }

    fn http() -> Value {
        json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})
    }

    fn namespace(name: &str, annotations: Value) -> Value {
        json!({"metadata": {"name": name, "annotations": annotations}})
    }

    #[test]
    fn what_the_compiler_leaves_out_is_not_carried() {
        let bypass = |prefix: &str, value: &str| json!({(format!("{prefix}bypass")): value});
        let (ours, old) = ("maesh.containo.us/", "mesh.traefik.io/");
        let none = || json!({});
        let bypassed = "is bypassed by its annotation";
        for (case, of, annotations, defaults, spec, flags, want) in [
            ("carried", "shop", none(), none(), http(), vec![], ""),
            ("our prefix", "shop", bypass(ours, "true"), none(), http(), vec![], bypassed),
            ("the old prefix", "shop", bypass(old, "true"), none(), http(), vec![], bypassed),
            ("of the Namespace, where it has no effect", "shop", none(), bypass(ours, "true"), http(), vec![], ""),
            ("of the Namespace, the old prefix", "shop", none(), bypass(old, "true"), http(), vec![], ""),
            ("not for this one", "shop", bypass(ours, "false"), bypass(ours, "true"), http(), vec![], ""),
            (
                "ours stands before the old one",
                "shop",
                json!({"maesh.containo.us/bypass": "false", "mesh.traefik.io/bypass": "true"}),
                none(),
                http(),
                vec![],
                "",
            ),
            ("blanks", "shop", bypass(ours, " true "), none(), http(), vec![], bypassed),
            ("no value of it", "shop", bypass(ours, "maybe"), none(), http(), vec![], ""),
            (
                "no ports",
                "shop",
                none(),
                none(),
                json!({"selector": {"app": "web"}, "ports": []}),
                vec![],
                "has no port",
            ),
            (
                "SCTP",
                "shop",
                none(),
                none(),
                json!({"selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "SCTP"}]}),
                vec![],
                "has no port",
            ),
            (
                "SCTP and TCP",
                "shop",
                none(),
                none(),
                json!({"ports": [{"name": "a", "port": 80, "protocol": "SCTP"}, {"name": "b", "port": 80}]}),
                vec![],
                "",
            ),
            (
                "an alias",
                "shop",
                none(),
                none(),
                json!({"type": "ExternalName", "externalName": "a.example", "selector": {"app": "web"}}),
                vec![],
                "ExternalName",
            ),
            ("kube-system", "kube-system", none(), none(), http(), vec![], "leaves it alone"),
            ("the mesh's own", "mesh", none(), none(), http(), vec![], "leaves it alone"),
            ("ignored", "shop", none(), none(), http(), vec!["--ignore-namespace=shop"], "leaves it alone"),
            ("another is watched", "shop", none(), none(), http(), vec!["--watch-namespace=pay"], "leaves it alone"),
            ("watched", "shop", none(), none(), http(), vec!["--watch-namespace=pay", "--watch-namespace=shop"], ""),
            (
                "annotations are needed",
                "shop",
                none(),
                none(),
                http(),
                vec!["--require-annotation"],
                "--require-annotation asks",
            ),
            ("the mesh is bypassed", "shop", none(), none(), http(), vec!["--bypass"], "as the whole mesh is"),
            ("bad", "shop", none(), none(), json!(5), vec![], "cannot be read"),
        ] {
            let pods = [json!({"spec": {"containers": [{"args": flags}]}})];
            let settings = settings(&pods, "mesh").unwrap();
            let reasons = reasons_against(&[service(of, annotations, spec)], &[namespace(of, defaults)], settings);
            let why = reasons[0].clone().unwrap_or_default();
            assert_eq!(why.is_empty(), want.is_empty(), "{case}: {why}");
            assert!(why.contains(want) && why.contains(if want.is_empty() { "" } else { "/web " }), "{case}: {why}");
        }
    }
}
