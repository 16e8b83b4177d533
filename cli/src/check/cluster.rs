//! The cluster itself: that it answers, what it is, what one may do in it.

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    context::{Context, items, some_of, text},
    outcome::Outcome,
};

/// The oldest Kubernetes whose objects the chart writes.
const OLDEST: (u64, u64) = (1, 31);
/// Clocks may differ by so much: certificates of the mesh are valid from a little before they are made.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Addresses that an installation needs at once.
const ADDRESSES: u128 = 3;
/// Addresses that should be left for Services with own addresses.
const COMFORTABLE: u128 = 64;

/// The API server answers.
pub async fn api(context: &Context) -> Outcome {
    match &*context.get("/version", "get /version").await {
        Ok(version) => {
            Outcome::pass(format!("{} answers (Kubernetes {})", context.cluster.server(), text(version, "/gitVersion")))
        }
        Err(error) => Outcome::fail(error.to_string(), "kubectl --context NAME get --raw /version"),
    }
}

/// The cluster is new enough.
pub async fn version(context: &Context) -> Outcome {
    match &*context.get("/version", "get /version").await {
        Ok(version) => judge_version(text(version, "/major"), text(version, "/minor")),
        Err(error) => Outcome::unread(error),
    }
}

fn judge_version(major: &str, minor: &str) -> Outcome {
    // Some providers write `33+`.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().ok();
    let (Some(major), Some(minor)) = (number(major), number(minor)) else {
        return Outcome::warn(
            format!("the version {major:?}.{minor:?} cannot be read"),
            "see kubectl version; 1.31 or newer is needed",
        );
    };
    let (oldest_major, oldest_minor) = OLDEST;
    if (major, minor) < OLDEST {
        return Outcome::fail(
            format!("Kubernetes {major}.{minor} is older than {oldest_major}.{oldest_minor}"),
            format!("upgrade the cluster to {oldest_major}.{oldest_minor} or newer"),
        );
    }
    Outcome::pass(format!("Kubernetes {major}.{minor}; {oldest_major}.{oldest_minor} or newer is needed"))
}

/// The clocks agree.
pub async fn clock(context: &Context) -> Outcome {
    match context.cluster.time().await {
        Ok(server) => judge_clock(server, Timestamp::now()),
        Err(error) => Outcome::unread(&error),
    }
}

fn judge_clock(server: Timestamp, here: Timestamp) -> Outcome {
    let skew = server.duration_since(here).abs();
    if skew > SKEW {
        return Outcome::fail(
            format!("the API server's clock and this one differ by {} s", skew.as_secs()),
            "set both by NTP: certificates and tokens are refused where clocks differ by more than 5 minutes",
        );
    }
    Outcome::pass(format!("the API server's clock and this one differ by {} s", skew.as_secs()))
}

/// What an installation creates, by group and resource; whether in the mesh's namespace.
const CREATED: &[(&str, &str, bool)] = &[
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("", "secrets", true),
    ("", "configmaps", true),
    ("apps", "deployments", true),
    ("apps", "daemonsets", true),
    ("policy", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
];

/// The one who asks may create everything that is installed.
pub async fn rights(context: &Context) -> Outcome {
    let mut refused = Vec::new();
    for (group, resource, namespaced) in CREATED {
        let mut attributes = json!({ "group": group, "resource": resource, "verb": "create" });
        if *namespaced {
            attributes["namespace"] = context.namespace().into();
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let url = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        match context.cluster.try_out(url, &review, "create selfsubjectaccessreviews").await {
            Ok(answer) if answer["status"]["allowed"] == true => {}
            Ok(_) if group.is_empty() => refused.push((*resource).to_owned()),
            Ok(_) => refused.push(format!("{resource}.{group}")),
            Err(error) => return Outcome::unread(&error),
        }
    }
    if refused.is_empty() {
        return Outcome::pass(format!("you may create all {} kinds of objects that are installed", CREATED.len()));
    }
    Outcome::fail(
        format!("you may not create {}", some_of(refused.iter().map(String::as_str))),
        "install as an administrator of the cluster, or have one bind cluster-admin to you for the installation",
    )
}

/// There are addresses left for Services.
pub async fn cluster_ips(context: &Context) -> Outcome {
    let ranges = context.get("/apis/networking.k8s.io/v1/servicecidrs", "list servicecidrs").await;
    let ranges = match &*ranges {
        Ok(ranges) => ranges,
        Err(error) if error.code() == 404 => {
            return Outcome::skip("this version of Kubernetes does not say how many addresses are left");
        }
        Err(error) => return Outcome::unread(error),
    };
    match &*context.get("/apis/networking.k8s.io/v1/ipaddresses", "list ipaddresses").await {
        Ok(taken) => judge_addresses(ranges, taken),
        Err(error) => Outcome::unread(error),
    }
}

fn judge_addresses(ranges: &Value, taken: &Value) -> Outcome {
    let cidrs = items(ranges).iter().flat_map(|range| range["spec"]["cidrs"].as_array().into_iter().flatten());
    let cidrs: Vec<IpNet> = cidrs.filter_map(|cidr| cidr.as_str()?.parse().ok()).collect();
    let taken: Vec<std::net::IpAddr> =
        items(taken).iter().filter_map(|address| text(address, "/metadata/name").parse().ok()).collect();
    let left = |v4: bool| {
        let of = || cidrs.iter().filter(|cidr| matches!(cidr, IpNet::V4(_)) == v4);
        // Neither the first nor, of IPv4, the last address is given out.
        let size = |cidr: &IpNet| (1_u128 << (cidr.max_prefix_len() - cidr.prefix_len()).min(64)).saturating_sub(2);
        let used = taken.iter().filter(|address| address.is_ipv4() == v4).count() as u128;
        of().next().is_some().then(|| of().map(size).sum::<u128>().saturating_sub(used))
    };
    let Some(least) = [left(true), left(false)].into_iter().flatten().min() else {
        return Outcome::skip("the cluster names no range of addresses for Services");
    };
    let fix = "add a ServiceCIDR with a further range (kubectl get servicecidrs), or delete Services that nobody uses";
    match least {
        1 => Outcome::fail("1 address is left for Services", fix),
        left if left < ADDRESSES => Outcome::fail(format!("{left} addresses are left for Services"), fix),
        left if left < COMFORTABLE => Outcome::warn(
            format!("{left} addresses are left for Services; those with TCP or UDP ports may share one each"),
            fix,
        ),
        left => Outcome::pass(format!("{left} addresses are left for Services")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::Verdict, *};

    #[test]
    fn versions() {
        for (major, minor, want) in [
            ("1", "37", Verdict::Pass),
            ("1", "31+", Verdict::Pass),
            ("1", "30", Verdict::Fail),
            ("2", "0", Verdict::Pass),
            ("", "", Verdict::Warn),
        ] {
            assert_eq!(judge_version(major, minor).verdict, want, "{major}.{minor}");
        }
    }

    #[test]
    fn clocks() {
        let here: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        for (seconds, want) in [(0, Verdict::Pass), (299, Verdict::Pass), (-301, Verdict::Fail), (3600, Verdict::Fail)]
        {
            assert_eq!(judge_clock(here + SignedDuration::from_secs(seconds), here).verdict, want, "{seconds} s");
        }
    }

    #[test]
    fn addresses() {
        let ranges = |cidrs: &[&str]| json!({ "items": [{ "spec": { "cidrs": cidrs } }] });
        let taken = |count: u8| {
            let one = |n| json!({ "metadata": { "name": format!("10.96.0.{n}") } });
            json!({ "items": (1..=count).map(one).collect::<Vec<_>>() })
        };
        for (cidrs, used, want) in [
            (&["10.96.0.0/16", "fd00::/112"][..], 200, Verdict::Pass),
            (&["10.96.0.0/24"], 250, Verdict::Warn),
            (&["10.96.0.0/24"], 254, Verdict::Fail),
            (&["10.96.0.0/29"], 2, Verdict::Warn),
            (&["fd00::/64"], 0, Verdict::Pass),
            (&[], 0, Verdict::Skip),
        ] {
            assert_eq!(judge_addresses(&ranges(cidrs), &taken(used)).verdict, want, "{cidrs:?}, {used} used");
        }
    }
}
