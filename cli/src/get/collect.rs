//! Asks the controllers for a list.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use futures_util::future::join_all;
use serde_json::Value;

use super::{counted, views};
use crate::{
    args::{GetArgs, Listed},
    inspect::{Member, Mesh, Role},
};

/// Which items of a list are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    namespace: Option<String>,
    name: Option<String>,
}

impl Wanted {
    /// What the command line asks for.
    ///
    /// # Errors
    /// When its parts do not go together.
    pub fn of(args: &GetArgs) -> Result<Self, String> {
        let (mut namespace, mut name) = (args.namespace.clone(), args.name.clone());
        if args.what == Listed::Proxies
            && let Some(namespace) = &namespace
        {
            return Err(format!(
                "-n is {namespace}, and proxies run in the namespace of the mesh; leave -n away, or name that namespace with \
                 --mesh-namespace"
            ));
        }
        // Files of manifests have diagnostics too, and a slash in their names.
        if let Some((of, alone)) = name.as_deref().and_then(|name| name.split_once('/'))
            && matches!(args.what, Listed::Services | Listed::Routes)
        {
            if let Some(other) = namespace.as_ref().filter(|other| *other != of) {
                return Err(format!("NAME is {of}/{alone}, and -n is {other}; leave one of the namespaces away"));
            }
            (namespace, name) = (Some(of.to_owned()), Some(alone.to_owned()));
        }
        // As the list shows Services: web.shop.maesh. The name of a Service has no dot.
        if let Some((alone, rest)) = name.as_deref().and_then(|name| name.split_once('.'))
            && args.what == Listed::Services
        {
            let of = rest.split('.').next().unwrap_or_default();
            (namespace, name) = (Some(of.to_owned()), Some(alone.to_owned()));
        }
        Ok(Self { namespace, name })
    }

    /// Everything in a namespace, or everywhere.
    pub fn everything(namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(str::to_owned), name: None }
    }

    /// What is said where the list is empty.
    pub fn none_found(&self, what: Listed) -> String {
        let named = self.name.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
        match &self.namespace {
            Some(namespace) => format!("No {} found{named} in namespace {namespace}.", counted(what)),
            None => format!("No {} found{named}.", counted(what)),
        }
    }

    /// What is said where NAME does not exist.
    pub fn not_found(&self, what: Listed) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        let place = self.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
        let list = what.as_str();
        match what {
            Listed::Services | Listed::Routes => format!(
                "no Service {name} is in the mesh{place}; `maesh get services` lists all, `maesh explain` says why one is not"
            ),
            Listed::Proxies => format!("no proxy {name} is connected; `maesh get {list}` lists all"),
            Listed::Diagnostics => format!(
                "no object {name} has a diagnostic{place}, and no Service of this name is in the mesh; `maesh get {list}` \
                 lists all"
            ),
        }
    }

    fn query(&self) -> Vec<(&'static str, &str)> {
        let namespace = self.namespace.as_deref().map(|namespace| ("namespace", namespace));
        namespace.into_iter().chain(self.name.as_deref().map(|name| ("name", name))).collect()
    }

    fn has_diagnostic(&self, item: &Value) -> bool {
        let object = &item["diagnostic"]["object"];
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let of_namespace = |wanted: &String| namespace == wanted || (text("kind") == "Namespace" && name == wanted);
        let named = |wanted: &String| name == wanted || wanted.split_once('/') == Some((namespace, name));
        self.namespace.as_ref().is_none_or(of_namespace) && self.name.as_ref().is_none_or(named)
    }

    fn has_proxy(&self, item: &Value) -> bool {
        item["role"] == "proxy" && self.name.as_ref().is_none_or(|name| item["id"] == name.as_str())
    }
}

/// The name under which the list stands in an answer.
pub fn key(what: Listed) -> &'static str {
    match what {
        Listed::Services => "services",
        Listed::Routes => "routes",
        Listed::Proxies => "subscribers",
        Listed::Diagnostics => "diagnostics",
    }
}

/// The items of a list that are wanted, in their order.
///
/// # Errors
/// When no controller answers.
pub async fn collect(mesh: &Mesh, what: Listed, wanted: &Wanted) -> anyhow::Result<Vec<Value>> {
    match what {
        Listed::Services => list(mesh, views::SERVICES, key(what), &wanted.query()).await,
        Listed::Routes => list(mesh, views::ROUTES, key(what), &wanted.query()).await,
        Listed::Proxies => {
            let mut all = subscribers(mesh).await?;
            all.retain(|item| wanted.has_proxy(item));
            Ok(all)
        }
        Listed::Diagnostics => {
            let mut all = list(mesh, "diagnostics", key(what), &[]).await?;
            all.retain(|item| wanted.has_diagnostic(item));
            // Errors first; the order of the rest is that of the objects.
            all.sort_by_key(|item| item["severity"] != "error");
            Ok(all)
        }
    }
}

/// Whether nothing in the list is no mistake in the name that was asked for.
///
/// # Errors
/// When no controller answers.
pub async fn may_be_empty(mesh: &Mesh, what: Listed, wanted: &Wanted) -> anyhow::Result<bool> {
    let Some(name) = &wanted.name else { return Ok(true) };
    if !matches!(what, Listed::Routes | Listed::Diagnostics) {
        return Ok(false);
    }
    let (of, alone) = name.split_once('/').map_or((None, name.as_str()), |(of, alone)| (Some(of), alone));
    let namespace = wanted.namespace.clone().or_else(|| of.map(str::to_owned));
    let service = Wanted { namespace, name: Some(alone.to_owned()) };
    Ok(!list(mesh, views::SERVICES, "services", &service.query()).await?.is_empty())
}

/// Asks one controller after the other, until one answers.
async fn list(mesh: &Mesh, path: &str, key: &str, query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
    let mut failed = None;
    for member in mesh.members(Role::Controller) {
        match parts(mesh, &member, path, key, query).await {
            Ok(items) => return Ok(items),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| no_controller(mesh)))
}

/// All parts of a list of one controller.
async fn parts(
    mesh: &Mesh,
    member: &Member,
    path: &str,
    key: &str,
    query: &[(&str, &str)],
) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut after): (Vec<Value>, Option<String>) = (Vec::new(), None);
    loop {
        let query: Vec<_> = query.iter().copied().chain(after.as_deref().map(|after| ("after", after))).collect();
        let mut part: Value = mesh.ask(Role::Controller, member, path, &query).await?;
        let Some(Value::Array(list)) = part.get_mut(key).map(Value::take) else {
            bail!("{} answered without {key}; use the same version of maesh", member.name());
        };
        items.extend(list);
        let next = part["next"].as_str().map(str::to_owned);
        // A part that ends where it began would be asked for again and again.
        if next.is_none() || next == after {
            return Ok(items);
        }
        after = next;
    }
}

/// Who is connected to any controller, by name. Each says only of its own subscribers how far they are, so what the one says
/// from which a subscriber has its configuration counts.
async fn subscribers(mesh: &Mesh) -> anyhow::Result<Vec<Value>> {
    let members = mesh.members(Role::Controller);
    let answers = join_all(members.iter().map(|member| parts(mesh, member, "subscribers", "subscribers", &[]))).await;
    merged(answers).unwrap_or_else(|| Err(no_controller(mesh)))
}

fn merged(answers: Vec<anyhow::Result<Vec<Value>>>) -> Option<anyhow::Result<Vec<Value>>> {
    let (mut all, mut failed, mut answered) = (BTreeMap::<String, Value>::new(), None, false);
    for answer in answers {
        match answer {
            Err(error) => failed = failed.or(Some(error)),
            Ok(items) => {
                answered = true;
                for item in items {
                    let id = item["id"].as_str().unwrap_or_default().to_owned();
                    let counts = item["elsewhere"] != true;
                    if counts || !all.contains_key(&id) {
                        all.insert(id, item);
                    }
                }
            }
        }
    }
    if answered { Some(Ok(all.into_values().collect())) } else { failed.map(Err) }
}

fn no_controller(mesh: &Mesh) -> anyhow::Error {
    anyhow!("no controller runs in {}; see kubectl get pods -A -l app.kubernetes.io/name=maesh", mesh.describe())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::args::{Cli, Command};

    fn wanted(arguments: &[&str]) -> Result<Wanted, String> {
        let cli = Cli::try_parse_from(["maesh", "get"].iter().chain(arguments)).map_err(|error| error.to_string())?;
        let Command::Get(args) = cli.command else { panic!("not get") };
        Wanted::of(&args)
    }

    #[test]
    fn names_and_namespaces() {
        for (arguments, namespace, name) in [
            (&["services"][..], None, None),
            (&["svc", "-A"], None, None),
            (&["service", "web", "-n", "shop"], Some("shop"), Some("web")),
            (&["services", "shop/web"], Some("shop"), Some("web")),
            (&["services", "web.shop.maesh"], Some("shop"), Some("web")),
            (&["route", "shop/web", "-n", "shop"], Some("shop"), Some("web")),
            (&["proxy", "maesh-proxy-x7k2p"], None, Some("maesh-proxy-x7k2p")),
            (&["diag", "/manifests/web.yaml"], None, Some("/manifests/web.yaml")),
        ] {
            let want = Wanted { namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) };
            assert_eq!(wanted(arguments), Ok(want), "{arguments:?}");
        }
        for (arguments, why) in [
            (&["services", "shop/web", "-n", "pay"][..], "NAME is shop/web, and -n is pay"),
            (&["proxies", "-n", "shop"], "--mesh-namespace"),
            (&["pods"], "[possible values: services, routes, proxies, diagnostics]"),
            (&["services", "-A", "-n", "shop"], "cannot be used with"),
        ] {
            let error = wanted(arguments).expect_err("refused");
            assert!(error.contains(why), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn the_controller_of_a_proxy_counts() {
        let one = |id: &str, elsewhere: bool, acknowledged: u64| {
            json!({
                "id": id, "role": "proxy", "elsewhere": elsewhere, "acknowledged": acknowledged,
            })
        };
        let here = vec![one("b", false, 7), one("a", true, 0)];
        let there = vec![one("a", false, 9), one("b", true, 0), one("c", true, 0)];
        let want = vec![one("a", false, 9), one("b", false, 7), one("c", true, 0)];
        let down = || Err(anyhow!("down"));
        for answers in [vec![Ok(here.clone()), Ok(there.clone()), down()], vec![Ok(there), down(), Ok(here)]] {
            assert_eq!(merged(answers).expect("an answer").expect("subscribers"), want);
        }
        assert!(merged(vec![down()]).is_some_and(|answer| answer.is_err()));
        assert!(merged(vec![]).is_none());
    }

    #[test]
    fn diagnostics_by_object() {
        let item = |kind: &str, namespace: Value, name: &str| {
            let object = json!({ "kind": kind, "namespace": namespace, "name": name });
            json!({ "severity": "warning", "diagnostic": { "object": object } })
        };
        let all = [
            item("Service", json!("shop"), "web"),
            item("EndpointSlice", json!("pay"), "web"),
            item("Namespace", Value::Null, "shop"),
            item("File", Value::Null, "/m/web.yaml"),
        ];
        for (arguments, want) in [
            (&["diag"][..], &[0, 1, 2, 3][..]),
            (&["diag", "-n", "shop"], &[0, 2]),
            (&["diag", "web"], &[0, 1]),
            (&["diag", "shop/web"], &[0]),
            (&["diag", "/m/web.yaml"], &[3]),
            (&["diag", "none"], &[]),
        ] {
            let wanted = wanted(arguments).expect("arguments");
            let found: Vec<_> = (0..all.len()).filter(|number| wanted.has_diagnostic(&all[*number])).collect();
            assert_eq!(found, want, "{arguments:?}");
        }
    }
}
