//! Another ephemeral agent where the last one is gone: it shares the app's process namespace and ends with its first
//! process, and a new pod comes without one.

use super::add::{AddOptions, Say, Step};
use super::{Cluster, PodTarget, WorkloadRef, ephemeral, find};
use crate::error::CommandError;

/// Adds an agent where no pod of the target has one that runs; true where it did. Nothing is asked: it is what was agreed
/// to when the first one was added. Waits until the app runs again.
pub async fn revive(
    cluster: &Cluster,
    target: &WorkloadRef,
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<bool, CommandError> {
    let found = find(cluster, target, cluster.container.as_deref()).await?;
    if found.iter().any(|pod| pod.has_agent) {
        return Ok(false);
    }
    let none = || super::obstacles::cluster(format!("{target} has no pod that runs"));
    let pod: PodTarget = found.into_iter().next().ok_or_else(none)?;
    let opts = AddOptions { yes: true, ..opts.clone() };
    say(Step::Note { text: format!("the agent in {pod} is gone: adding another one"), hint: None });
    let way = ephemeral::way(cluster, &pod, &opts).await??;
    ephemeral::add(cluster, &pod, way, &opts, say).await?;
    Ok(true)
}
