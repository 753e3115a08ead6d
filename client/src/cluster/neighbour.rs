//! Good manners in a shared cluster: no change without asking in a place that may not be for development.

use std::net::IpAddr;

use devsync_protocol::contract::{ENABLED, INJECT};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::time::timeout;

use super::{ANSWER_WITHIN, Cluster};
use crate::error::CommandError;

/// Names that tools for clusters on one's own machine give their contexts.
const LOCAL_NAMES: [&str; 7] = [
    "minikube",
    "docker-desktop",
    "docker-for-desktop",
    "rancher-desktop",
    "colima",
    "orbstack",
    "podman-desktop",
];
const LOCAL_PREFIXES: [&str; 4] = ["kind-", "k3d-", "minikube-", "colima-"];

/// True for a cluster on this machine: its API listens on a loopback address, or the context has the name that a tool
/// for such clusters gives it *and* the address is none of the wide Internet. A name alone proves nothing: anybody may
/// call a context `kind-prod`. (A tunnel to elsewhere that ends on a loopback address cannot be told apart.)
pub(super) fn is_local(context: &str, server: &str) -> bool {
    let host = host_of(server);
    let named = LOCAL_NAMES.contains(&context) || LOCAL_PREFIXES.iter().any(|p| context.starts_with(p));
    match host.parse::<IpAddr>() {
        // 0.0.0.0 as a destination is this machine; k3d writes that.
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() => true,
        Ok(IpAddr::V4(ip)) => named && (ip.is_private() || ip.is_link_local()),
        Ok(IpAddr::V6(ip)) => named && (ip.is_unique_local() || ip.is_unicast_link_local()),
        Err(_) => {
            let host = host.to_ascii_lowercase();
            host == "localhost"
                || host.ends_with(".localhost")
                || named && (host.ends_with(".docker.internal") || !host.contains('.'))
        }
    }
}

/// The host in `https://HOST:PORT/…`.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// Asks before anything happens in a place that does not say it is for development.
pub async fn check_place(
    cluster: &Cluster,
    yes: bool,
    allow_contexts: &[String],
) -> Result<(), CommandError> {
    let (context, namespace) = (&cluster.context, &cluster.namespace);
    let allowed = allow_contexts.iter().any(|allowed| allowed == context);
    if yes || allowed || is_local(context, &cluster.server) || is_for_development(cluster).await {
        return Ok(());
    }
    let what = format!(
        "context {context} is no cluster of this machine, and namespace {namespace} is not marked for development"
    );
    let hint = format!(
        "if it is meant: --yes; for good: allow-contexts = [\"{context}\"] in devsync.toml, or kubectl label namespace \
         {namespace} {INJECT}={ENABLED}{}",
        cluster.context_flag()
    );
    crate::ask::confirmed(&what, ("namespace", namespace), &hint).await
}

/// True where the namespace has the label of development; who may not read it cannot know.
async fn is_for_development(cluster: &Cluster) -> bool {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match timeout(ANSWER_WITHIN, namespaces.get(&cluster.namespace)).await {
        Ok(Ok(namespace)) => {
            let labels = namespace.metadata.labels.unwrap_or_default();
            labels.get(INJECT).is_some_and(|value| value == ENABLED)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_this_machine_is_known() {
        for (context, server) in [
            ("anything", "https://127.0.0.1:6443"),
            ("anything", "https://localhost:6443/"),
            ("anything", "https://[::1]:6443"),
            ("k3d-dev", "https://0.0.0.0:35000"),
            ("minikube", "https://192.168.49.2:8443"),
            ("minikube-two", "https://10.1.2.3:8443"),
            ("kind-dev", "https://kind-control-plane:6443"),
            ("docker-desktop", "https://kubernetes.docker.internal:6443"),
        ] {
            assert!(is_local(context, server), "{context} {server}");
        }
    }

    #[test]
    fn a_name_alone_makes_no_cluster_local() {
        for (context, server) in [
            ("kind-prod", "https://api.prod.example.com"),
            ("minikube", "https://34.1.2.3"),
            ("shared", "https://10.0.0.1:6443"),
            ("shared", "https://apiserver:6443"),
            ("minikubes", "https://192.168.49.2:8443"),
            ("prod", "https://127.0.0.1.example.com"),
            ("prod", "https://localhost.example.com:443"),
            ("prod", "https://[2001:db8::1]:6443"),
            ("prod", ""),
        ] {
            assert!(!is_local(context, server), "{context} {server}");
        }
    }
}
