//! What the API server said against a change: another field manager, a missing right, a policy. Pure.

use kube::core::Status;

use crate::cluster::Cluster;
use crate::cluster::obstacles::{WAYS_OUT, cluster as failure};
use crate::error::CommandError;
use crate::report::plain_line;

/// A pod that the server would not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) struct Refused {
    message: String,
}

impl Refused {
    pub(in crate::cluster) fn is_quota(&self) -> bool {
        is_quota(&self.message)
    }

    pub(in crate::cluster) fn explain(&self, cluster: &Cluster, name: &str) -> CommandError {
        failure(format!("the cluster refuses a pod of {name} with devsync's agent; {name} was not changed"))
            .cause(self.message.clone())
            .hint(policy_hint(&self.message, &cluster.namespace))
    }
}

/// What refuses a pod, or nothing where this user may only not ask for one.
pub(in crate::cluster) fn refusal(error: kube::Error) -> Option<Refused> {
    let kube::Error::Api(status) = error else { return None };
    let asks_in_vain = is_rbac(&status) || status.message.contains("does not support dry run");
    let is_refusal = (400..500).contains(&status.code)
        || ["admission webhook", "failed calling webhook"].iter().any(|words| status.message.contains(words));
    (is_refusal && !asks_in_vain && status.code != 401 && status.code != 429)
        .then(|| Refused { message: plain_line(&status.message) })
}

/// A right that is missing is said in these words by the API server itself; admission has its own.
fn is_rbac(status: &Status) -> bool {
    status.code == 403 && status.message.contains(" cannot ") && status.message.contains(" resource \"")
}

/// `exceeded quota: …`, or `failed quota: q: must specify limits.memory`.
fn is_quota(message: &str) -> bool {
    message.contains("exceeded quota") || message.contains("failed quota")
}

fn policy_hint(message: &str, namespace: &str) -> String {
    if is_quota(message) {
        return format!(
            "kubectl describe quota -n {namespace}; the agent asks for 10m CPU and 16Mi (limits 2 and 128Mi), and a \
             rollout for one more pod"
        );
    }
    if message.contains("PodSecurity") {
        return "state runAsUser and runAsGroup in the app's securityContext: the agent then needs no more than that"
            .to_owned();
    }
    "whoever runs that policy can except devsync's agent; --via ephemeral or --copy-to NAME may pass"
        .to_owned()
}

/// Why a server-side apply was refused.
pub(in crate::cluster) fn explain_apply(cluster: &Cluster, error: kube::Error, name: &str) -> CommandError {
    let doing = format!("{name} cannot be changed");
    match error {
        kube::Error::Api(status) if status.code == 409 => match conflicts(&status) {
            conflicts if conflicts.is_empty() => failure(doing)
                .cause(plain_line(&status.message))
                .hint("somebody changed it at the same time: try again"),
            conflicts => failure(format!("{doing}: another field manager owns what devsync needs"))
                .cause(conflicts.join("; "))
                .hint(format!("devsync never forces a field. Take it out there, or {WAYS_OUT}")),
        },
        kube::Error::Api(status)
            if !is_rbac(&status) && (400..500).contains(&status.code) && status.code != 401 =>
        {
            let hint = policy_hint(&status.message, &cluster.namespace);
            failure(format!("{doing}: the cluster refuses it, and {name} is as it was"))
                .cause(plain_line(&status.message))
                .hint(hint)
        }
        other => cluster.explain(other, &doing),
    }
}

/// The same for a manifest of somebody's own, of which devsync does not need a field more than another.
pub(in crate::cluster) fn explain_conflict(
    cluster: &Cluster,
    error: kube::Error,
    name: &str,
) -> CommandError {
    let doing = format!("{name} cannot be applied");
    let conflicts = match &error {
        kube::Error::Api(status) if status.code == 409 => conflicts(status),
        _ => Vec::new(),
    };
    if conflicts.is_empty() {
        return cluster.explain(error, &doing);
    }
    failure(format!("{doing}: other field managers own what the manifest says otherwise; nothing was changed"))
        .cause(conflicts.join("; "))
        .hint(
            "devsync never forces a field: leave it out of the manifest, or say there what the cluster has; to own \
             nothing but the agent's own fields: devsync attach --via sidecar",
        )
}

/// The fields in conflict and who owns them.
fn conflicts(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let conflicts = causes.filter(|cause| cause.reason == "FieldManagerConflict");
    let line = |field: &str, message: &str| {
        let manager = message.split('"').nth(1).unwrap_or(message);
        format!("{} is managed by {manager}", field.trim_start_matches('.'))
    };
    conflicts.map(|cause| line(&cause.field, &cause.message)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "").with_code(code).boxed())
    }

    #[test]
    fn a_conflict_names_field_and_manager() {
        let answer = json!({
            "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict",
            "message": "Apply failed with 1 conflict: conflict with \"argocd-controller\" using apps/v1: \
                        .spec.template.spec.shareProcessNamespace",
            "details": {"causes": [{"reason": "FieldManagerConflict",
                "message": "conflict with \"argocd-controller\" using apps/v1",
                "field": ".spec.template.spec.shareProcessNamespace"}]}});
        let status: Status = serde_json::from_value(answer).expect("a status");
        let expected = "spec.template.spec.shareProcessNamespace is managed by argocd-controller";
        assert_eq!(conflicts(&status), [expected]);
    }

    #[test]
    fn who_may_not_create_pods_is_not_refused_by_a_policy() {
        let rbac = "pods is forbidden: User \"ann\" cannot create resource \"pods\" in API group \"\" in the \
                    namespace \"shop\"";
        assert_eq!(refusal(status(403, rbac)), None);
        assert_eq!(refusal(status(500, "etcd is gone")), None);
        assert_eq!(refusal(status(400, "admission webhook \"x\" does not support dry run")), None);
        let denied =
            refusal(status(400, "admission webhook \"x\" denied the request: no sidecars")).expect("refused");
        assert!(!denied.is_quota());
        assert!(refusal(status(403, "exceeded quota: q, requested: pods=1")).expect("refused").is_quota());
        assert!(refusal(status(403, "violates PodSecurity \"restricted:latest\"")).is_some());
    }
}
