//! Takes devsync out of a target again: its fields of a workload, its ephemeral containers, its copy of a pod.

use devsync_protocol::contract::FIELD_MANAGER;

use super::add::{Say, Step};
use super::workload::{Maker, maker};
use super::{Cluster, WorkloadRef, managed, rollout, sidecar};
use crate::error::CommandError;

/// How it is taken out.
#[derive(Debug, Clone, Copy, Default)]
pub struct DetachOptions {
    /// Ask nothing.
    pub yes: bool,
    /// Wait for the rollout.
    pub wait: bool,
}

/// Takes out what attach put there. Where nothing is there, that is said, and is no error.
pub async fn detach(
    cluster: &Cluster,
    target: &WorkloadRef,
    opts: &DetachOptions,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let Maker::Workload { workload, object } = maker(cluster, target).await? else {
        say(Step::Done(format!("{target} has nothing of devsync")));
        return Ok(());
    };
    if managed::applied_by(&object, FIELD_MANAGER).next().is_none() {
        say(Step::Done(format!("{workload} has nothing of devsync")));
        return Ok(());
    }
    say(Step::Plan(format!(
        "a rollout of {workload} in namespace {} of context {}: takes out what devsync added",
        cluster.namespace, cluster.context
    )));
    let before = rollout::uids(&rollout::pods(cluster, &object).await?.0);
    sidecar::take_out(cluster, &workload, &object).await?;
    if opts.wait
        && let Err(failed) = rollout::wait(cluster, &workload, &before, say).await?
    {
        let what = format!("{workload} is as it was before, but its pods do not come up");
        return Err(
            rollout::explain_failure(cluster, &what, failed, "devsync has no part in it any more").await
        );
    }
    say(Step::Done(format!("{workload} is as it was: devsync owns no field of it")));
    Ok(())
}
