//! The pod's mark while a client is attached: annotations that say who and since when, and an Event. It tells, and holds
//! nobody off: who may attach is decided by the agent.

use std::sync::{Arc, Mutex, PoisonError};

use devsync_protocol::contract::{ATTACHED_BY, ATTACHED_SINCE, MODIFIED_AT};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::add::{Say, Step};
use super::agent::who;
use super::{ANSWER_WITHIN, Cluster, PodTarget, explain};
use crate::error::CommandError;
use crate::report::plain_line;

/// Times that a mark is tried again when somebody else changes the pod at that moment.
const TRIES: usize = 3;
/// Longest name of a person that is shown, in characters.
const LONGEST_WHO: usize = 64;

/// The mark of one attach: on the pod that it is connected to, wherever it follows. All clones are one.
#[derive(Clone, Default)]
pub struct Marks(Arc<Mutex<Option<Mark>>>);

impl Marks {
    /// Marks the pod that is attached to from now on, and takes the mark from the one before. Somebody else's mark is
    /// respected (and said) unless their session was taken over. What cannot be written for want of a right is a note.
    /// Dropped in the middle, [`Marks::remove`] still takes away what there is.
    pub async fn follow(&self, cluster: &Cluster, target: &PodTarget, take_over: bool, say: &mut Say<'_>) {
        let next = Mark::of(cluster, target);
        let last = self.replace(Some(next.clone()));
        if last.as_ref().is_some_and(|last| last.uid == next.uid) {
            return;
        }
        if let Some(last) = last {
            last.remove().await;
        }
        if !next.write(target, take_over, say).await {
            self.replace(None);
        }
    }

    /// Takes the mark away, where it is still this one.
    pub async fn remove(&self) {
        if let Some(mark) = self.replace(None) {
            mark.remove().await;
        }
    }

    fn replace(&self, mark: Option<Mark>) -> Option<Mark> {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, mark)
    }
}

/// A pod's annotations while this client is attached to it.
#[derive(Clone)]
struct Mark {
    cluster: Cluster,
    namespace: String,
    pod: String,
    uid: String,
    who: String,
}

impl Mark {
    fn of(cluster: &Cluster, target: &PodTarget) -> Self {
        Self {
            cluster: cluster.clone(),
            namespace: target.namespace.clone(),
            pod: target.pod.clone(),
            uid: target.uid.clone(),
            who: who(),
        }
    }

    /// Writes annotations and Event; false where the pod is not marked as ours.
    async fn write(&self, target: &PodTarget, take_over: bool, say: &mut Say<'_>) -> bool {
        let now = Timestamp::now().to_string();
        let wanted = json!({ATTACHED_BY: self.who, ATTACHED_SINCE: now, MODIFIED_AT: now});
        match self.change(&wanted, |by| by == self.who || take_over).await {
            Ok(None) => {}
            Ok(Some(other)) => {
                let text = format!("{target} is marked as attached by {other}");
                let hint =
                    "a mark of a session that ended without a word: --take-over replaces it".to_owned();
                say(Step::Note { text, hint: Some(hint) });
                return false;
            }
            Err(error) => {
                say(unmarked(&format!("{target} cannot be marked as attached"), &error));
                return false;
            }
        }
        let (who, container) = (&self.who, &target.container);
        let message = format!("{who} attached to container {container}: its files are synced from there");
        if let Err(error) = self.tell("DevsyncAttached", &message).await {
            say(unmarked(&format!("no Event can be written for {target}"), &error));
        }
        true
    }

    async fn remove(mut self) {
        self.cluster = self.cluster.fresh().await;
        let gone = json!({ATTACHED_BY: null, ATTACHED_SINCE: null});
        if let Ok(None) = self.change(&gone, |by| by == self.who).await {
            let message = format!("{} is no longer attached; files that were synced stay", self.who);
            let _ = self.tell("DevsyncDetached", &message).await;
        }
    }

    /// Writes the annotations, unless somebody else's mark is there that `may` does not pass: that one is the answer.
    async fn change(
        &self,
        annotations: &Value,
        may: impl Fn(&str) -> bool,
    ) -> Result<Option<String>, CommandError> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let doing = format!("pod/{} cannot be annotated", self.pod);
        for tried in 1.. {
            let pod = self.cluster.ask(&doing, pods.get(&self.pod)).await?;
            if pod.metadata.uid.as_deref() != Some(&self.uid) {
                return Err(CommandError::new(doing).cause("it was replaced meanwhile"));
            }
            let now = serde_json::to_value(&pod.metadata.annotations).unwrap_or_default();
            if let Some(other) = attached_by(&now, |by| !may(by)) {
                return Ok(Some(other));
            }
            // With the version that was read, so that two people cannot both think they were first.
            let version = pod.metadata.resource_version;
            let patch = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
            let params =
                PatchParams { field_manager: Some("devsync-mark".to_owned()), ..PatchParams::default() };
            match timeout(ANSWER_WITHIN, pods.patch(&self.pod, &params, &Patch::Merge(&patch))).await {
                Ok(Ok(_)) => return Ok(None),
                Ok(Err(kube::Error::Api(status))) if status.code == 409 && tried < TRIES => {}
                Ok(Err(error)) => return Err(explain(error, &doing)),
                Err(_) => return Err(CommandError::new(doing).cause("the API server did not answer")),
            }
        }
        Ok(None)
    }

    async fn tell(&self, reason: &str, message: &str) -> Result<(), CommandError> {
        let now = Timestamp::now();
        let event = json!({
            // As client-go names them.
            "metadata": {"name": format!("{}.{:x}", self.pod, now.as_nanosecond()), "namespace": self.namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": self.pod, "namespace": self.namespace,
                               "uid": self.uid},
            "reason": reason, "message": message, "type": "Normal", "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "devsync"}, "reportingComponent": "devsync", "reportingInstance": self.who,
        });
        let doing = "an Event cannot be written";
        let event: Event =
            serde_json::from_value(event).map_err(|error| CommandError::new(doing).cause(error))?;
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        self.cluster.ask(doing, events.create(&PostParams::default(), &event)).await.map(drop)
    }
}

/// Who is attached by these annotations and since when, where `is_asked_for` says yes to the name: `ann since 10:00`.
/// Anybody who may annotate a pod can write that, so it is one line no longer than a name.
fn attached_by(annotations: &Value, is_asked_for: impl Fn(&str) -> bool) -> Option<String> {
    let by = annotations[ATTACHED_BY].as_str().filter(|by| is_asked_for(by))?;
    let short = |text: &str| plain_line(text).chars().take(LONGEST_WHO).collect::<String>();
    let since = annotations[ATTACHED_SINCE].as_str().map(|since| format!(" since {}", short(since)));
    Some(format!("{}{}", short(by), since.unwrap_or_default()))
}

/// Somebody else who is attached to the pod.
pub(super) fn somebody_else(pod: &Value) -> Option<String> {
    let us = who();
    attached_by(&pod["metadata"]["annotations"], |by| by != us)
}

fn unmarked(text: &str, error: &CommandError) -> Step {
    let why = error.causes().first().cloned().unwrap_or_else(|| error.to_string());
    Step::Note { text: format!("{text}: {why}"), hint: error.get_hint().map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_persons_mark_is_told_on_one_line() {
        let pod = |by: &str| json!({"metadata": {"annotations": {ATTACHED_BY: by, ATTACHED_SINCE: "10:00"}}});
        assert_eq!(somebody_else(&pod("ann@x")).as_deref(), Some("ann@x since 10:00"));
        assert_eq!(somebody_else(&pod(&who())), None);
        assert_eq!(somebody_else(&json!({"metadata": {}})), None);
        let evil = somebody_else(&pod(&format!("{}\n\u{1b}[2J", "x".repeat(200)))).unwrap_or_default();
        assert!(evil.len() < 90 && !evil.contains('\n') && !evil.contains('\u{1b}'), "{evil}");
    }
}
