//! The questions of `maesh explain`, as the admin endpoint of each role answers them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use maesh_compiler::compile::explain::Question;
use maesh_config::ServiceName;
use maesh_controller::serve::{Asker, Unanswered};
use maesh_dns::{Caller, Snapshots};
use maesh_proxy::explain::Explainer;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::sent;
use crate::admin::{Parameters, Query};

/// How long a question waits where too many are asked; shorter than who asks does.
const WAIT: Duration = Duration::from_secs(3);
/// How often it tries meanwhile.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Path of the controller's side, below `/api/`.
pub const CONTROLLER: &str = "explain/controller";
/// Path of who may call whom.
pub const ACCESS: &str = "explain/access";
/// Path of what dns answers.
pub const DNS: &str = "explain/dns";
/// Path of what the proxy does.
pub const PROXY: &str = "explain/proxy";

/// All three, where one process has all roles.
pub fn all(
    asker: Asker,
    snapshots: Snapshots,
    place: fn(IpAddr) -> Caller,
    explainer: Explainer,
) -> BTreeMap<&'static str, Query> {
    [
        (CONTROLLER, controller(asker.clone())),
        (ACCESS, access(asker)),
        (DNS, dns(snapshots, place)),
        (PROXY, proxy(explainer)),
    ]
    .into()
}

/// `?name=NAME&from=ADDRESS|POD`
pub fn controller(asker: Asker) -> Query {
    Query::new(move |parameters, by| {
        let asker = asker.clone();
        Box::pin(async move {
            let question = Question { name: name(&parameters)?, from: text(&parameters, "from") };
            to_json(&patiently(|| asker.explain(question.clone(), by)).await.map_err(|why| why.to_string())?)
        })
    })
}

/// `?namespace=NAMESPACE&after=NAMESPACE/SERVICE`
pub fn access(asker: Asker) -> Query {
    Query::new(move |parameters, by| {
        let asker = asker.clone();
        Box::pin(async move {
            let namespace = text(&parameters, "namespace");
            let parse =
                |text: String| text.parse().map_err(|_| format!("after is {text:?}, which is no NAMESPACE/SERVICE"));
            let after: Option<ServiceName> = text(&parameters, "after").map(parse).transpose()?;
            let matrix = patiently(|| asker.access(namespace.as_deref(), after.as_ref(), by)).await;
            to_json(&matrix.map_err(|why| why.to_string())?)
        })
    })
}

/// Asks the controller, and again for a while where too many questions are asked: a person who asks often should wait a
/// moment, not read an error.
pub async fn patiently<T, F: Future<Output = Result<T, Unanswered>>>(ask: impl Fn() -> F) -> Result<T, Unanswered> {
    let until = Instant::now() + WAIT;
    loop {
        match ask().await {
            Err(Unanswered::TooMany) if Instant::now() < until => sleep(TRY_AGAIN).await,
            answer => return answer,
        }
    }
}

/// `?name=NAME&from=ADDRESS`; `place` says how an address reaches this responder.
pub fn dns(snapshots: Snapshots, place: fn(IpAddr) -> Caller) -> Query {
    let answer = move |parameters: &Parameters| {
        let caller = address(parameters)?.map_or(Caller::Anybody, place);
        let explained = maesh_dns::explain(&snapshots.now(), &name(parameters)?, caller);
        to_json(&explained.map_err(|bad| bad.to_string())?)
    };
    Query::new(move |parameters, _| Box::pin(std::future::ready(answer(&parameters))))
}

/// `?name=HOST&from=ADDRESS&port=PORT`, and what is sent there, as [`sent`] has it.
pub fn proxy(explainer: Explainer) -> Query {
    Query::new(move |parameters, _| {
        let explainer = explainer.clone();
        Box::pin(async move {
            let port = text(&parameters, "port").map(|port| port.parse());
            let port = port.transpose().map_err(|_| "port must be a number from 1 to 65535")?;
            let (host, caller, sent) = (name(&parameters)?, address(&parameters)?, sent::read(&parameters)?);
            let question = maesh_proxy::explain::Question { host, caller, port, sent };
            explainer.fetch(&question).await;
            to_json(&explainer.explain(&question))
        })
    })
    .up_to(sent::LONGEST)
}

/// A parameter that was given.
pub fn text(parameters: &Parameters, name: &str) -> Option<String> {
    parameters.get(name).filter(|value| !value.is_empty()).cloned()
}

fn name(parameters: &Parameters) -> Result<String, String> {
    text(parameters, "name").ok_or_else(|| "say which name: ?name=web.shop.maesh".to_owned())
}

fn address(parameters: &Parameters) -> Result<Option<IpAddr>, String> {
    let parse = |text: String| match text.parse::<IpAddr>() {
        // Callers of IPv4 count as such on every listener.
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => Err(format!("from is {text:?}, which is no address")),
    };
    text(parameters, "from").map(parse).transpose()
}

/// An answer as it is sent.
pub fn to_json(answer: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}
