//! Why an agent cannot, or should not, be added to a workload: found in its objects before anything is written.
//! Pure.

use devsync_injector::pid1::insists_on_pid_1;
use devsync_protocol::contract::{AGENT_CONTAINER, VOLUME};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::managed::has_manager;
use super::state::choose;
use crate::error::{CommandError, Kind};

/// Ways out that leave the workload's own objects alone.
pub(crate) const WAYS_OUT: &str = "--via ephemeral (no change of the workload), a namespace where the webhook adds the \
                                   agent (label devsync.dev/inject=enabled), or --copy-to NAME (a copy of the pod \
                                   beside the Service)";

/// What such programs say before they end, as found in their logs.
const INIT_COMPLAINTS: [&str; 4] = [
    "can only run as pid 1",
    "trying to run as system instance, but the system has not been booted with systemd",
    "must be run as pid 1",
    "explicit --user argument required to run as user manager",
];

/// The tool that keeps an object as it wants it, and would undo a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub tool: String,
    /// The label, annotation or reference that says so.
    pub mark: String,
}

/// Field managers by which these tools write.
const TOOLS: [(&str, &str); 5] = [
    ("helm", "Helm"),
    ("argocd-controller", "Argo CD"),
    ("argocd-application-controller", "Argo CD"),
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
];

/// Finds who owns a workload: Helm, Argo CD, Flux, or an operator's object.
pub(super) fn owner(workload: &Value) -> Option<Owner> {
    let metadata = &workload["metadata"];
    let found = |tool: &str, mark: &str| Some(Owner { tool: tool.to_owned(), mark: mark.to_owned() });
    for group in ["labels", "annotations"] {
        for key in metadata[group].as_object().into_iter().flat_map(|marks| marks.keys()) {
            let owner = match key.split_once('/') {
                Some(("kustomize.toolkit.fluxcd.io" | "helm.toolkit.fluxcd.io", _)) => found("Flux", key),
                Some(("argocd.argoproj.io", "tracking-id" | "instance" | "installation-id")) => {
                    found("Argo CD", key)
                }
                _ => None,
            };
            if owner.is_some() {
                return owner;
            }
        }
    }
    let managed_by = metadata["labels"]["app.kubernetes.io/managed-by"].as_str();
    if managed_by == Some("Helm") {
        return found("Helm", "app.kubernetes.io/managed-by=Helm");
    }
    let mut annotations = metadata["annotations"].as_object().into_iter().flatten().map(|(key, _)| key);
    if let Some(key) = annotations.find(|key| key.starts_with("meta.helm.sh/")) {
        return found("Helm", key);
    }
    if let Some((manager, tool)) = TOOLS.iter().find(|(manager, _)| has_manager(workload, manager)) {
        return found(tool, &format!("fields of the manager {manager}"));
    }
    let references = metadata["ownerReferences"].as_array().into_iter().flatten();
    let controller = references.into_iter().find(|r| r["controller"] == true)?;
    let name = format!("{}/{}", word(&controller["kind"]), word(&controller["name"]));
    found(&name, "metadata.ownerReferences")
}

/// Refuses a workload that another tool would set back, unless `overwrite`.
pub(super) fn check_owner(workload: &Value, name: &str, overwrite: bool) -> Result<(), CommandError> {
    match owner(workload) {
        Some(Owner { tool, mark }) if !overwrite => {
            Err(cluster(format!("{name} belongs to {tool}, which may undo a change of it"))
                .cause(format!("it has {mark}"))
                .hint(format!("{WAYS_OUT}; --overwrite changes it all the same")))
        }
        _ => Ok(()),
    }
}

/// What a workload's spec says against a sidecar that arrives by a rollout.
pub(super) fn check_rollout(workload: &Value, name: &str) -> Result<(), CommandError> {
    let spec = &workload["spec"];
    if spec["paused"] == true {
        return Err(cluster(format!("{name} is paused, so that no new pod would come"))
            .hint(format!("kubectl rollout resume {name}")));
    }
    let strategy = &spec["updateStrategy"];
    if strategy["type"] == "OnDelete" {
        return Err(cluster(format!("{name} replaces its pods only when they are deleted (OnDelete)"))
            .hint("--via ephemeral, or --copy-to NAME"));
    }
    if strategy["rollingUpdate"]["partition"].as_i64().is_some_and(|partition| partition > 0) {
        return Err(cluster(format!(
            "{name} holds its rollout back (updateStrategy.rollingUpdate.partition)"
        ))
        .hint("--via ephemeral, or --copy-to NAME"));
    }
    if spec["replicas"] == 0 {
        return Err(cluster(format!("{name} has no replicas, so that there is no pod to attach to"))
            .hint(format!("kubectl scale {name} --replicas=1")));
    }
    Ok(())
}

/// What a pod's spec says against any agent in it.
pub(super) fn check_pod(pod_spec: &Value, name: &str) -> Result<(), CommandError> {
    let os = |selector: &str| pod_spec["nodeSelector"][selector] == "windows";
    if pod_spec["os"]["name"] == "windows" || os("kubernetes.io/os") || os("beta.kubernetes.io/os") {
        return Err(cluster(format!("{name} runs on Windows, and devsync's agent on Linux only"))
            .hint("a Linux image of the same app, for development"));
    }
    if pod_spec["hostPID"] == true {
        return Err(cluster(format!("{name} uses the node's process namespace (hostPID)"))
            .cause("an agent in it would see and could signal every process of the node")
            .hint("leave hostPID out in the development variant of the workload"));
    }
    Ok(())
}

/// What a pod's spec says against a sidecar, whose container shares the process namespace with the app's.
pub(super) fn check_sidecar(pod_spec: &Value, container: &Value, name: &str) -> Result<(), CommandError> {
    let volumes = pod_spec["volumes"].as_array().into_iter().flatten();
    if volumes.into_iter().any(|v| v["name"] == VOLUME && v.get("emptyDir").is_none()) {
        return Err(cluster(format!("{name} has a volume {VOLUME:?} that is no emptyDir"))
            .cause("that is the name of the volume for the agent's state")
            .hint("rename it, or --via ephemeral"));
    }
    // A read-only directory of it is what the injector gives an app, and holds no state.
    let sees_state = |m: &Value| m["name"] == VOLUME && !(m["readOnly"] == true && m["subPath"].is_string());
    let mounts = |c: &&Value| c["volumeMounts"].as_array().into_iter().flatten().any(sees_state);
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| pod_spec[list].as_array());
    if let Some(other) = lists.flatten().filter(|c| c["name"] != AGENT_CONTAINER).find(mounts) {
        return Err(cluster(format!(
            "container {} of {name} mounts a volume {VOLUME:?}",
            word(&other["name"])
        ))
        .cause("that is the name of the volume for the agent's state, which no other container may write to")
        .hint("rename it, or --via ephemeral"));
    }
    if let Some(init) = insists_on_pid_1(container) {
        let app = word(&container["name"]);
        return Err(cluster(format!("container {app} of {name} starts {init}, which must be process 1"))
            .cause("beside a sidecar that shares its process namespace it is not, and ends at once")
            .hint("--via ephemeral: that leaves process 1 as it is"));
    }
    Ok(())
}

/// True where a container's last words are those of a program that found itself not to be process 1.
pub(super) fn complains_of_pid(log: &str) -> bool {
    let log = log.to_lowercase();
    INIT_COMPLAINTS.iter().any(|words| log.contains(words))
}

/// The app's container in a template: chosen as in a pod.
pub(super) fn app_container<'a>(
    template: &'a Value,
    named: Option<&str>,
    name: &str,
) -> Result<&'a Value, CommandError> {
    let mut pod: Pod = serde_json::from_value(json!({"spec": template["spec"]}))
        .map_err(|error| cluster(format!("the template of {name} cannot be read")).cause(error))?;
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.annotations = serde_json::from_value(template["metadata"]["annotations"].clone()).ok();
    let chosen = choose(&pod, named)?;
    let mut containers = template["spec"]["containers"].as_array().into_iter().flatten();
    containers.find(|c| c["name"] == *chosen).ok_or_else(|| cluster(format!("{name} has no container")))
}

/// A string of an object, or a word for its absence.
pub(crate) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

pub(crate) fn cluster(what: impl Into<String>) -> CommandError {
    CommandError::new(what).kind(Kind::Cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(metadata: Value) -> Option<String> {
        owner(&json!({"metadata": metadata})).map(|o| o.tool)
    }

    #[test]
    fn gitops_tools_are_known_by_their_marks() {
        let helm = json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}});
        assert_eq!(meta(helm).as_deref(), Some("Helm"));
        let helm = json!({"annotations": {"meta.helm.sh/release-name": "x"}});
        assert_eq!(meta(helm.clone()).as_deref(), Some("Helm"));
        let argo = json!({"annotations": {"argocd.argoproj.io/tracking-id": "x"}, "labels": helm["labels"]});
        assert_eq!(meta(argo).as_deref(), Some("Argo CD"));
        let flux = json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "x",
                                     "app.kubernetes.io/managed-by": "Helm"}});
        assert_eq!(meta(flux).as_deref(), Some("Flux"));
        let flux = json!({"labels": {"helm.toolkit.fluxcd.io/name": "x"}});
        assert_eq!(meta(flux).as_deref(), Some("Flux"));
        let operator = json!({"ownerReferences": [{"kind": "Cache", "name": "c", "controller": true}]});
        let applied = json!({"managedFields": [{"manager": "argocd-controller", "operation": "Apply"}]});
        assert_eq!(meta(applied).as_deref(), Some("Argo CD"));
        assert_eq!(meta(operator).as_deref(), Some("Cache/c"));
        assert_eq!(meta(json!({"labels": {"app.kubernetes.io/managed-by": "kubectl"}})), None);
        // A note for Argo CD in an object is not yet its ownership.
        assert_eq!(meta(json!({"annotations": {"argocd.argoproj.io/sync-wave": "1"}})), None);
    }

    #[test]
    fn an_owned_workload_is_changed_only_when_asked_to() {
        let owned = json!({"metadata": {"annotations": {"meta.helm.sh/release-name": "x"}}});
        let error = check_owner(&owned, "deployment/demo", false).expect_err("refused");
        assert!(error.what().contains("deployment/demo belongs to Helm"), "{error}");
        let hint = error.get_hint().unwrap_or_default();
        assert!(
            ["--via ephemeral", "--copy-to", "devsync.dev/inject", "--overwrite"]
                .iter()
                .all(|w| hint.contains(w))
        );
        assert!(check_owner(&owned, "deployment/demo", true).is_ok());
    }

    #[test]
    fn a_rollout_that_would_never_come_is_refused() {
        let check = |spec: Value| check_rollout(&json!({"spec": spec}), "sts/x").map_err(|e| e.to_string());
        assert!(check(json!({"replicas": 1, "updateStrategy": {"type": "RollingUpdate"}})).is_ok());
        assert!(check(json!({})).is_ok());
        for spec in [
            json!({"paused": true}),
            json!({"updateStrategy": {"type": "OnDelete"}}),
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
            json!({"replicas": 0}),
        ] {
            assert!(check(spec.clone()).is_err(), "{spec}");
        }
    }

    #[test]
    fn programs_that_must_be_process_1_are_known() {
        let command = |c: &str| insists_on_pid_1(&json!({"command": [c], "image": "x"})).is_some();
        for init in ["/init", "/sbin/init", "/lib/systemd/systemd", "/bin/s6-svscan", "systemd"] {
            assert!(command(init), "{init}");
        }
        for fine in ["/sbin/tini", "tini", "dumb-init", "/app/init-db.sh", "/usr/bin/python3"] {
            assert!(!command(fine), "{fine}");
        }
        let image = |i: &str| insists_on_pid_1(&json!({"image": i})).is_some();
        assert!(image("lscr.io/linuxserver/nginx:1") && !image("docker.io/library/nginx:1"));
        assert!(complains_of_pid("s6-overlay-suexec: fatal: can only run as pid 1\n"));
        assert!(!complains_of_pid("listening on 8080"));
    }

    #[test]
    fn pods_that_cannot_have_an_agent_are_named() {
        let check = |spec: Value| check_pod(&spec, "pod/x").map_err(|e| e.what().to_owned());
        assert!(check(json!({"os": {"name": "windows"}})).is_err_and(|e| e.contains("Windows")));
        assert!(check(json!({"nodeSelector": {"kubernetes.io/os": "windows"}})).is_err());
        assert!(check(json!({"hostPID": true})).is_err_and(|e| e.contains("hostPID")));
        assert!(check(json!({"os": {"name": "linux"}})).is_ok());
        let app = json!({"name": "app"});
        assert!(check_sidecar(&json!({"volumes": [{"name": VOLUME, "configMap": {}}]}), &app, "x").is_err());
        assert!(check_sidecar(&json!({"volumes": [{"name": VOLUME, "emptyDir": {}}]}), &app, "x").is_ok());
        let shared = |container: &str| {
            let containers =
                json!([{"name": container, "volumeMounts": [{"name": VOLUME, "mountPath": "/x"}]}]);
            json!({"volumes": [{"name": VOLUME, "emptyDir": {}}], "containers": containers})
        };
        assert!(
            check_sidecar(&shared("app"), &app, "x").is_err_and(|e| e.what().contains("container app of x"))
        );
        assert!(check_sidecar(&shared(AGENT_CONTAINER), &app, "x").is_ok());
    }

    #[test]
    fn the_apps_container_is_chosen_as_in_a_pod() {
        let template = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "b"}},
            "spec": {"containers": [{"name": AGENT_CONTAINER}, {"name": "a"}, {"name": "b"}]}});
        let name = |named| app_container(&template, named, "deploy/x").map(|c| word(&c["name"]).to_owned());
        assert_eq!(name(None).ok().as_deref(), Some("b"));
        assert_eq!(name(Some("a")).ok().as_deref(), Some("a"));
        let unknown = name(Some("c")).expect_err("unknown");
        assert!(unknown.what().contains("deploy/x has no container c"), "{unknown}");
    }
}
