//! What stands between a user and a workload in a cluster: the server, the user's rights, the namespace, the webhook,
//! images that do not come. It only reads, and asks the server what would be allowed.

mod namespace;
mod rights;
mod workload;

use devsync_protocol::finding::Finding;

use super::Cluster;
use super::target::{PodTarget, WorkloadRef};

/// From here on sessions over WebSockets need the verb create, where get was enough.
const CREATE: (u32, u32) = (1, 35);

/// What was found.
pub struct Examined {
    pub cluster: Vec<Finding>,
    /// Of the workload, where one was named and the server answers.
    pub workload: Option<Vec<Finding>>,
    /// The pod that an attach would take.
    pub pod: Option<PodTarget>,
}

/// Looks at the cluster and, where one is named, at a workload's pods.
pub async fn examine(cluster: &Cluster, workload: Option<&WorkloadRef>, container: Option<&str>) -> Examined {
    let version = match cluster.version("the API server does not answer").await {
        Ok(version) => version,
        Err(error) => {
            let found = vec![crate::doctor::laptop::failure("server", &error)];
            return Examined { cluster: found, workload: None, pod: None };
        }
    };
    let mut found = vec![server(cluster, version)];
    let place = namespace::read(cluster).await;
    found.push(namespace::level(&cluster.namespace, &place, version));
    let rights = rights::ask(cluster).await;
    found.extend(rights.needed(&cluster.namespace, version >= CREATE));
    let seen = match workload {
        Some(workload) => Some(workload::look(cluster, workload, container, &rights).await),
        None => None,
    };
    let pod = seen.as_ref().and_then(|seen| seen.pod.as_ref());
    let without = pod.filter(|pod| !pod.has_agent).map(|pod| pod.pod.clone());
    found.extend(namespace::webhook(cluster, &place, without.as_deref()).await);
    let (workload, pod) = seen.map(|seen| (seen.findings, seen.pod)).unzip();
    Examined { cluster: found, workload, pod: pod.flatten() }
}

fn server(cluster: &Cluster, (major, minor): (u32, u32)) -> Finding {
    let since = |at| if (major, minor) >= (1, at) { "yes" } else { "no" };
    Finding::ok(
        "server",
        format!(
            "Kubernetes {major}.{minor} at {}: ephemeral containers (1.23): {}, native sidecars (1.29): {}",
            cluster.server,
            since(23),
            since(29),
        ),
    )
}
