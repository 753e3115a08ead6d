//! An agent of another image than the one that is asked for: a sidecar of devsync's own is replaced by a rollout, and
//! what others put there, or what cannot be taken out of a running pod, is told. Nothing is replaced without being said.

use serde_json::Value;

use super::add::{AddOptions, Added, Say, Step};
use super::workload::maker;
use super::{Cluster, PodTarget, WorkloadRef, managed, sidecar};
use crate::error::{CommandError, Kind};
use devsync_injector::agent::agent_in;
use devsync_protocol::contract::{FIELD_MANAGER, annotation};

/// The image of the pod's agent, where another one is asked for.
pub(super) fn other_image(pod: &PodTarget, opts: &AddOptions) -> Option<String> {
    if !opts.args.toolbox && opts.args.agent_image.is_none() {
        return None;
    }
    image(pod).filter(|image| image != opts.image())
}

fn image(pod: &PodTarget) -> Option<String> {
    let agent = pod.agent.as_deref()?;
    let spec = pod.object.spec.as_ref()?;
    let sidecars = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut all = sidecars.map(|container| (container.name.as_str(), &container.image));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let found = all.find(|(name, _)| *name == agent).map(|(_, image)| image);
    let found = found.or_else(|| ephemeral.into_iter().find(|c| c.name == agent).map(|c| &c.image));
    found.cloned().flatten()
}

/// Replaces the agent in `pod`, whose image is `image`.
pub(super) async fn replace(
    cluster: &Cluster,
    target: &WorkloadRef,
    (pod, image): (&PodTarget, String),
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<Added, CommandError> {
    let wanted = opts.image();
    let ephemeral = pod.object.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref());
    if ephemeral.is_some_and(|all| all.iter().any(|c| Some(&c.name) == pod.agent.as_ref())) {
        return Err(CommandError::new(format!("{pod} has an agent of another image: {image}"))
            .kind(Kind::Cluster)
            .cause("it is an ephemeral container, which cannot be replaced while it runs")
            .hint(format!("devsync detach {target} {} ends it; then attach again", cluster.flags)));
    }
    let (workload, object) = maker(cluster, target).await?.changeable()?;
    if !is_devsyncs(&object) {
        let text = format!("the agent of {workload} stays {image}: devsync attach did not put it there");
        let hint = format!(
            "annotation {} of its pods names the injector's image: {wanted}",
            annotation::AGENT_IMAGE
        );
        say(Step::Note { text, hint: Some(hint) });
        return Ok(Added::Ready);
    }
    let text = format!("the agent of {workload} is {image}: it is replaced by {wanted}, by another rollout");
    say(Step::Note { text, hint: None });
    sidecar::add(cluster, &workload, &object, opts, say).await
}

/// An agent that attach has applied, and nobody else.
fn is_devsyncs(object: &Value) -> bool {
    agent_in(&object["spec"]["template"]["spec"]).is_some()
        && managed::applied_by(object, FIELD_MANAGER).next().is_some()
        && !managed::is_manifest_of(object, FIELD_MANAGER)
}
