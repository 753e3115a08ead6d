//! Which ids and capabilities the agent gets in a pod: one decision, made from what the pod and its namespace say.
//! Pure; knows no API.

use serde_json::{Value, json};

use crate::annotations::RunAs;

/// The strictest Pod Security level that a namespace enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// Label by which Pod Security Admission enforces a level.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// OpenShift's annotation of a namespace: ids come from this range, and its default policy drops all capabilities.
const UID_RANGE: &str = "openshift.io/sa.scc.uid-range";

impl Level {
    /// The name that labels have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    /// The level of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted].into_iter().find(|level| level.name() == name)
    }

    /// The level that a namespace's labels ask for; without a label nothing is enforced.
    pub fn of_namespace(namespace: &Value) -> Self {
        let metadata = &namespace["metadata"];
        if metadata["annotations"][UID_RANGE].is_string() {
            return Self::Restricted;
        }
        match metadata["labels"][ENFORCE].as_str() {
            None | Some("privileged") => Self::Privileged,
            Some("baseline") => Self::Baseline,
            // A value that this release does not know is taken for the strictest.
            Some(_) => Self::Restricted,
        }
    }
}

/// Whom the agent runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// The app's own ids, which the pod's spec states; no capability.
    App { uid: i64, gid: i64 },
    /// Root with the runtime's default capabilities: it takes on the app's ids for each access, whatever they are.
    Root,
    /// Root with SYS_PTRACE: the app holds capabilities that the runtime's default set lacks.
    Tracer,
    /// Ids that the runtime picks, hoped to be the app's: the spec does not state them, and root is not allowed.
    Given,
}

/// The agent's security context and how it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    pub runs: Runs,
    /// The container's `securityContext`.
    pub context: Value,
}

impl Fit {
    /// Whom the agent runs as, for a person.
    pub fn words(&self) -> String {
        match self.runs {
            Runs::Root => "root with the runtime's default capabilities".to_owned(),
            Runs::Tracer => {
                "root with SYS_PTRACE, since the app holds more than the default capabilities".to_owned()
            }
            Runs::App { uid, gid } => format!("the app's ids {uid}:{gid}, without capabilities"),
            Runs::Given => "ids that the runtime picks, without capabilities".to_owned(),
        }
    }
}

/// The capabilities that containerd, CRI-O (but for NET_RAW) and Docker give a container that asks for none.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Finds the agent's security context for an app's container in a pod's spec.
///
/// Up to *baseline* the agent is root with `capabilities` unset: that reaches an app of any ids and writes root-owned
/// files, which most images have. Under *restricted* it has the app's ids where uid and gid are both stated.
/// `/proc/PID/root` asks for equal uid *and* gid, so that one of them alone counts as unknown.
pub fn fit(pod_spec: &Value, container: &Value, level: Level) -> Fit {
    let runs = match (level, stated_ids(pod_spec, container)) {
        (Level::Restricted, Some((uid, gid))) => Runs::App { uid, gid },
        (Level::Restricted, None) => Runs::Given,
        // Baseline does not permit that capability; nor does it the app's.
        (Level::Privileged, _) if holds_more_than_default(container) => Runs::Tracer,
        _ => Runs::Root,
    };
    Fit { runs, context: context(runs, pod_spec, container, level) }
}

/// The fit for what a pod asks for, and why it is another where it cannot be had.
pub fn fit_for(
    pod_spec: &Value,
    container: &Value,
    level: Level,
    run_as: RunAs,
    ptrace: bool,
) -> (Fit, Option<String>) {
    let made = |runs| Fit { runs, context: context(runs, pod_spec, container, level) };
    let refused = |what: &str, needs: &str| {
        let level = level.name();
        Some(format!("the agent is without {what}: the namespace enforces {level}, and that takes {needs}"))
    };
    let is_restricted = level == Level::Restricted;
    match (run_as, ptrace) {
        // Only root keeps a capability at exec.
        (RunAs::App, true) if level == Level::Privileged => {
            (made(Runs::Tracer), Some("the agent runs as root: SYS_PTRACE is of no use to a user".to_owned()))
        }
        (_, true) if level == Level::Privileged => (made(Runs::Tracer), None),
        (RunAs::App, _) => {
            let note = if ptrace { refused("SYS_PTRACE", "privileged") } else { None };
            (fit_as_app(pod_spec, container).unwrap_or_else(|| made(Runs::Given)), note)
        }
        (_, true) => (fit(pod_spec, container, level), refused("SYS_PTRACE", "privileged")),
        (RunAs::Root, false) if is_restricted => {
            (fit(pod_spec, container, level), refused("root", "baseline or privileged"))
        }
        _ => (fit(pod_spec, container, level), None),
    }
}

/// The context of an init container that needs no right: the app's ids where its container states them, since those of
/// its image or of the pod count anyway.
pub fn without_rights(level: Level, container: &Value) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
    });
    if level == Level::Restricted {
        context["runAsNonRoot"] = json!(true);
    }
    for field in ["runAsUser", "runAsGroup", "runAsNonRoot"] {
        let value = container["securityContext"].get(field);
        if let Some(value) = value.filter(|_| !(field == "runAsNonRoot" && level == Level::Restricted)) {
            context[field] = value.clone();
        }
    }
    if let Some(label) = selinux(container, level) {
        context["seLinuxOptions"] = label.clone();
    }
    context
}

/// The app's SELinux label, since another one would keep the agent out; the pod's own is inherited. From baseline on
/// only one that the level permits.
fn selinux(container: &Value, level: Level) -> Option<&Value> {
    const TYPES: [&str; 4] = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let label = container["securityContext"].get("seLinuxOptions")?;
    let is_plain = |field: &str| label.get(field).is_none_or(|value| value == "");
    let is_usual = is_plain("type") || TYPES.iter().any(|known| label["type"] == *known);
    (level == Level::Privileged || is_plain("user") && is_plain("role") && is_usual).then_some(label)
}

/// The app's uid, where the spec states it.
pub fn stated_uid(pod_spec: &Value, container: &Value) -> Option<i64> {
    id(container, "runAsUser").or_else(|| id(pod_spec, "runAsUser"))
}

/// The same-ids fit, where both ids are stated: the way out where a policy refuses root.
pub fn fit_as_app(pod_spec: &Value, container: &Value) -> Option<Fit> {
    let (uid, gid) = stated_ids(pod_spec, container)?;
    let runs = Runs::App { uid, gid };
    // Whatever the level is: the strictest one's rules hold at each.
    Some(Fit { runs, context: context(runs, pod_spec, container, Level::Restricted) })
}

/// The security context of an agent that runs as `runs` beside `container`.
fn context(runs: Runs, pod_spec: &Value, container: &Value, level: Level) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    match runs {
        Runs::App { uid, gid } => {
            context["runAsUser"] = json!(uid);
            context["runAsGroup"] = json!(gid);
            context["runAsNonRoot"] = json!(uid != 0);
            context["capabilities"] = json!({"drop": ["ALL"]});
        }
        Runs::Root | Runs::Tracer => {
            context["runAsUser"] = json!(0);
            context["runAsGroup"] = json!(0);
            // The pod may say otherwise, and kubelet would then refuse to start this container.
            context["runAsNonRoot"] = json!(false);
            if runs == Runs::Tracer {
                context["capabilities"] = json!({"add": ["SYS_PTRACE"]});
            }
        }
        Runs::Given => {
            // A uid without a gid: the gid is then the runtime's choice, for the agent as for the app.
            let uid = id(container, "runAsUser").filter(|_| id(pod_spec, "runAsUser").is_none());
            if let Some(uid) = uid {
                context["runAsUser"] = json!(uid);
            }
            if let Some(gid) = id(container, "runAsGroup") {
                context["runAsGroup"] = json!(gid);
            }
            // Not beside a stated uid 0, or kubelet would refuse to start it.
            context["runAsNonRoot"] = json!(stated_uid(pod_spec, container) != Some(0));
            context["capabilities"] = json!({"drop": ["ALL"]});
        }
    }
    if let Some(label) = selinux(container, level) {
        context["seLinuxOptions"] = label.clone();
    }
    context
}

/// The app's uid and gid, where the spec states both; the container's word counts before the pod's.
pub fn stated_ids(pod_spec: &Value, container: &Value) -> Option<(i64, i64)> {
    let stated = |field| id(container, field).or_else(|| id(pod_spec, field));
    Some((stated("runAsUser")?, stated("runAsGroup")?))
}

fn id(of: &Value, field: &str) -> Option<i64> {
    of["securityContext"][field].as_i64()
}

/// An app that keeps capabilities which root does not have by default is out of that root's reach. One that is not
/// root loses them at exec; that is not always stated, and then the answer is yes.
fn holds_more_than_default(container: &Value) -> bool {
    let context = &container["securityContext"];
    let added = context["capabilities"]["add"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut beyond = added.filter(|name| {
        let name = name.strip_prefix("CAP_").unwrap_or(name);
        !DEFAULT_CAPABILITIES.contains(&name)
    });
    context["privileged"] == true || beyond.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(pod: Value, container: Value, level: Level) -> Runs {
        fit(&json!({"securityContext": pod}), &json!({"securityContext": container}), level).runs
    }

    #[test]
    fn a_namespace_says_its_level_by_label() {
        let level = |v: Value| Level::of_namespace(&json!({"metadata": v}));
        assert_eq!(level(json!({})), Level::Privileged);
        assert_eq!(level(json!({"labels": {ENFORCE: "baseline"}})), Level::Baseline);
        assert_eq!(level(json!({"labels": {ENFORCE: "restricted"}})), Level::Restricted);
        assert_eq!(level(json!({"labels": {ENFORCE: "stricter"}})), Level::Restricted);
        assert_eq!(level(json!({"annotations": {UID_RANGE: "1000/10"}})), Level::Restricted);
    }

    #[test]
    fn root_serves_every_app_that_a_namespace_lets_it() {
        for level in [Level::Privileged, Level::Baseline] {
            assert_eq!(runs(json!({}), json!({}), level), Runs::Root);
            let ids = json!({"runAsUser": 65532, "runAsGroup": 65532, "runAsNonRoot": true});
            assert_eq!(runs(ids.clone(), json!({}), level), Runs::Root, "its files may be root's");
            let context = fit(&json!({"securityContext": ids}), &json!({}), level).context;
            assert_eq!((&context["runAsNonRoot"], &context["runAsUser"]), (&json!(false), &json!(0)));
            assert!(context.get("capabilities").is_none(), "a smaller set than the app's cannot reach it");
        }
    }

    #[test]
    fn a_restricted_namespace_gets_the_apps_own_ids() {
        let both = json!({"runAsUser": 1000, "runAsGroup": 2000});
        let same = Runs::App { uid: 1000, gid: 2000 };
        assert_eq!(runs(both.clone(), json!({}), Level::Restricted), same);
        assert_eq!(runs(json!({"runAsUser": 1}), both.clone(), Level::Restricted), same);
        assert_eq!(
            runs(json!({"runAsUser": 1, "runAsGroup": 2000}), json!({"runAsUser": 1000}), Level::Restricted),
            same
        );
        let fit = fit(&json!({"securityContext": both}), &json!({}), Level::Restricted);
        assert_eq!(
            fit.context,
            json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1000, "runAsGroup": 2000,
                "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
            })
        );
    }

    #[test]
    fn one_id_alone_counts_as_unknown() {
        let container = json!({"securityContext": {"runAsUser": 1000}});
        let guess = fit(&json!({}), &container, Level::Restricted);
        assert_eq!(guess.runs, Runs::Given);
        assert_eq!((&guess.context["runAsUser"], guess.context.get("runAsGroup")), (&json!(1000), None));
        assert_eq!(guess.context["runAsNonRoot"], json!(true));
        assert_eq!(fit_as_app(&json!({}), &container), None);
    }

    #[test]
    fn an_app_with_more_capabilities_needs_a_tracer() {
        let adds = |name: &str| json!({"capabilities": {"add": [name]}});
        assert_eq!(runs(json!({}), adds("NET_ADMIN"), Level::Privileged), Runs::Tracer);
        assert_eq!(runs(json!({}), adds("CAP_CHOWN"), Level::Baseline), Runs::Root);
        assert_eq!(runs(json!({}), json!({"privileged": true}), Level::Privileged), Runs::Tracer);
        let context = fit(&json!({}), &json!({"securityContext": adds("ALL")}), Level::Privileged).context;
        assert_eq!(context["capabilities"], json!({"add": ["SYS_PTRACE"]}));
    }

    #[test]
    fn the_apps_selinux_label_is_the_agents() {
        let container = json!({"securityContext": {"seLinuxOptions": {"level": "s0:c1,c2"}}});
        let context = fit(&json!({}), &container, Level::Baseline).context;
        assert_eq!(context["seLinuxOptions"]["level"], "s0:c1,c2");
    }
}
