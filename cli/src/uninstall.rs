//! `maesh uninstall`: everything that has to be done before the mesh's objects are deleted.
//!
//! It says that the mesh is to go, and waits for the controllers, which do it; without any controller, or where they get
//! no further, it does it by itself. Helm runs it before it deletes anything. What it has done, another run finds done.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::PostParams, core::ObjectMeta};
use maesh_compiler::diagnostic::escaped;
use maesh_controller::{
    api::ApiError,
    duties::{
        owner,
        stanza::{Cluster, Leave, Mesh, Right},
        uninstall::{ByHand, ClusterDns, DONE, PROGRESS, Uninstall, hooks},
    },
    source::kubernetes,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::args::{CorednsMode, UninstallArgs};
use crate::terminal;

/// Pause between two looks at the marker.
const LOOK: Duration = Duration::from_secs(1);

/// Takes the mesh out of the cluster's ways.
pub async fn run(args: UninstallArgs) -> anyhow::Result<ExitCode> {
    let client = kubernetes::client(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
    let markers = Api::<ConfigMap>::namespaced(client.clone(), &args.namespace);
    let since = Instant::now();
    refuse_applied_hooks(&markers, &args).await?;
    mark(&markers, &args).await?;
    let mut heard = ProgressLog::new(since);
    let mut alone: Option<JoinHandle<()>> = None;
    loop {
        match progress(&markers, &args.leave.marker).await {
            Ok(Some(now)) if now.starts_with(hooks::REFUSED) => bail!("{now}"),
            Ok(Some(now)) if now != heard.last => {
                terminal::out(format_args!("{}\n", escaped(&now)));
                heard.note(Instant::now(), now);
            }
            Ok(_) => {}
            Err(error) => {
                terminal::err(format_args!("the API server does not say how far it is: {error}; asking on\n"));
            }
        }
        if heard.last == DONE {
            break;
        }
        let patience = heard.patience(&args);
        if alone.is_none() && heard.news.elapsed() > patience {
            let who = if heard.last.is_empty() { "no controller answered" } else { "the controllers got no further" };
            terminal::out(format_args!("{who} within {patience:?}; this program does it\n"));
            alone = Some(tokio::spawn(by_itself(client.clone(), args.clone())));
        }
        if since.elapsed() > args.deadline {
            bail!(
                "not done within {:?}; last: {}. Run it again, or look at the controllers' logs: kubectl -n {} logs \
                 deployment/{}",
                args.deadline,
                if heard.last.is_empty() { "nothing was done" } else { &heard.last },
                args.namespace,
                args.leave.deployment
            );
        }
        sleep(LOOK).await;
    }
    if let Some(alone) = alone {
        alone.abort();
    }
    terminal::out(format_args!("nothing leads to the mesh any more; its objects can be deleted\n"));
    Ok(ExitCode::SUCCESS)
}

/// What the controllers said of how far they are.
struct ProgressLog {
    last: String,
    all: BTreeSet<String>,
    /// Since when nothing new was said. What was said before is not new: who begins again and again gets no further.
    news: Instant,
}

impl ProgressLog {
    fn new(now: Instant) -> Self {
        Self { last: String::new(), all: BTreeSet::new(), news: now }
    }

    fn note(&mut self, now: Instant, said: String) {
        if self.all.insert(said.clone()) {
            self.news = now;
        }
        self.last = said;
    }

    /// How long nothing new may be said: the horizon is the one step in which who is at it is silent for long. Well below
    /// the 300 s that Helm waits for its hook, so that there is time left to do it.
    fn patience(&self, args: &UninstallArgs) -> Duration {
        if self.last.is_empty() { args.takeover } else { args.takeover + args.horizon }
    }
}

/// Fails where the chart's hooks were applied as ordinary objects: the Job that runs this program came with them.
async fn refuse_applied_hooks(markers: &Api<ConfigMap>, args: &UninstallArgs) -> anyhow::Result<()> {
    match hooks::are_applied(markers, &args.leave.marker).await {
        Ok(true) => bail!("{}", hooks::refusal(&args.namespace, &args.leave.marker)),
        Ok(false) => Ok(()),
        // The rights of a chart that does not have this ConfigMap.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        Err(error) => {
            let name = hooks::applied_name(&args.leave.marker);
            Err(error).with_context(|| format!("ConfigMap {}/{name}", args.namespace))
        }
    }
}

/// Says that the mesh is to go, where Helm has not said it.
async fn mark(markers: &Api<ConfigMap>, args: &UninstallArgs) -> anyhow::Result<()> {
    let name = &args.leave.marker;
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let marker = ConfigMap { metadata, ..ConfigMap::default() };
    if markers.get_metadata_opt(name).await.with_context(|| format!("ConfigMap {}/{name}", args.namespace))?.is_some() {
        return Ok(());
    }
    match markers.create(&PostParams::default(), &marker).await {
        // Just made by another.
        Err(error) if ApiError::Conflict.is(&error) => {}
        made => drop(made.with_context(|| format!("making ConfigMap {}/{name}", args.namespace))?),
    }
    terminal::out(format_args!(
        "ConfigMap {}/{name} says that the mesh is to go; deleting it takes that back\n",
        args.namespace
    ));
    Ok(())
}

async fn progress(markers: &Api<ConfigMap>, marker: &str) -> Result<Option<String>, kube::Error> {
    let found = markers.get_metadata_opt(marker).await?;
    Ok(found.and_then(|marker| marker.metadata.annotations?.remove(PROGRESS)))
}

/// Without any controller that gets further. Whatever one does meanwhile may be done twice.
async fn by_itself(client: Client, args: UninstallArgs) {
    let owner = owner::find(&client, &args.namespace, &args.leave.deployment).await;
    let options = args.leave.options(&args.namespace, args.horizon);
    let dns: Box<dyn ClusterDns> = match args.coredns_mode {
        CorednsMode::Manual => Box::new(ByHand),
        CorednsMode::Auto => {
            let service = args.stanza.service.dns_service.clone();
            let mesh = Mesh { namespace: args.namespace.clone(), service, zones: args.stanza.zones.clone() };
            Box::new(Leave { cluster: Cluster::new(client.clone()), mesh, right: Right::Person, recorder: None })
        }
    };
    let uninstall = Uninstall { client, options, dns, leadership: None, owner };
    while let Err(error) = uninstall.run(false).await {
        terminal::err(format_args!("{error}; trying again\n"));
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_begins_again_and_again_gets_no_further() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut heard = ProgressLog::new(start);
        for (at, said, want) in [
            (5, "waiting", 5),
            (50, "taking out", 50),
            // Another leader.
            (70, "waiting", 50),
            (115, "taking out", 50),
            (120, "asked still", 120),
        ] {
            heard.note(after(at), said.to_owned());
            assert_eq!((heard.news, heard.last.as_str()), (after(want), said), "{at} s");
        }
    }
}
