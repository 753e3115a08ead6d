//! The namespace: its Pod Security level and what that leaves the agent, and whether the webhook serves it.

use devsync_protocol::contract::{ENABLED, INJECT};
use devsync_protocol::finding::Finding;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use crate::cluster::Cluster;
use crate::cluster::health::{self, Finding as Broken};
use crate::error::CommandError;

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// Pod Security admission is on by default from here on.
const ENFORCED: (u32, u32) = (1, 23);

pub(super) type Place = Result<Namespace, CommandError>;

pub(super) async fn read(cluster: &Cluster) -> Place {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let name = &cluster.namespace;
    cluster.ask(&format!("namespace {name} cannot be read"), namespaces.get(name)).await
}

fn label<'p>(place: &'p Namespace, name: &str) -> Option<&'p str> {
    place.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn level(namespace: &str, place: &Place, version: (u32, u32)) -> Finding {
    let place = match place {
        Ok(place) => place,
        Err(error) => {
            let text =
                format!("{}: its Pod Security level is not known, and restricted is assumed", error.line());
            return Finding::warning("namespace", text, error.get_hint().unwrap_or_default());
        }
    };
    let level = label(place, ENFORCE).unwrap_or("privileged");
    let allows = match level {
        "privileged" => "any agent, SYS_PTRACE too",
        "baseline" => {
            "an agent as root with the runtime's capabilities, which takes the app's ids; no SYS_PTRACE"
        }
        _ => {
            "only an agent with the app's own ids and no capability: files of root in the image cannot be written \
              without a workspace volume, and devsync shell is beside the app where the image has none"
        }
    };
    let unless = if version < ENFORCED { " (this server is too old to enforce it)" } else { "" };
    let text = format!(
        "namespace {namespace} enforces the Pod Security level {level}{unless}, which permits {allows}"
    );
    match level {
        "privileged" | "baseline" | "restricted" => Finding::ok("namespace", text),
        unknown => Finding::warning(
            "namespace",
            format!("namespace {namespace} has the unknown Pod Security level {unknown:?}"),
            format!("kubectl label namespace {namespace} {ENFORCE}=baseline --overwrite"),
        ),
    }
}

/// The webhook's way to the namespace, and to a pod without an agent. What nobody asked for is no problem.
pub(super) async fn webhook(cluster: &Cluster, place: &Place, pod: Option<&str>) -> Vec<Finding> {
    let broken = health::diagnose(cluster, pod).await;
    let asked_for = place.as_ref().is_ok_and(|place| label(place, INJECT) == Some(ENABLED));
    if broken.is_empty() {
        return vec![Finding::ok("webhook", format!("it serves namespace {}", cluster.namespace))];
    }
    broken.iter().map(|broken| judge(broken, asked_for, broken.hint(cluster))).collect()
}

fn judge(broken: &Broken, asked_for: bool, fix: String) -> Finding {
    let text = broken.to_string();
    match broken {
        Broken::NoWebhook if !asked_for => {
            Finding::ok("webhook", format!("{text}, and nobody asked for it here: attach adds the agent"))
        }
        Broken::NotLabelled { .. } => Finding::ok("webhook", format!("{text}: attach adds the agent")),
        Broken::NoWebhook
        | Broken::NoEndpoints { .. }
        | Broken::Distrusted { .. }
        | Broken::NotSelected { .. }
            if asked_for =>
        {
            Finding::problem("webhook", text, fix)
        }
        _ => Finding::warning("webhook", text, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devsync_protocol::finding::Level;
    use serde_json::json;

    #[test]
    fn a_level_says_what_it_permits() {
        let place = |labels: serde_json::Value| {
            Ok(serde_json::from_value(json!({"metadata": {"name": "shop", "labels": labels}})).expect("one"))
        };
        let text = |labels, version| level("shop", &place(labels), version).text;
        assert!(text(json!({}), (1, 30)).contains("privileged, which permits any agent"));
        let restricted = json!({ENFORCE: "restricted"});
        assert!(text(restricted.clone(), (1, 30)).contains("own ids"));
        assert!(text(restricted, (1, 20)).contains("too old to enforce it"));
        assert_eq!(level("shop", &place(json!({ENFORCE: "none"})), (1, 30)).level, Level::Warning);
        assert_eq!(level("shop", &Err(CommandError::new("no")), (1, 30)).level, Level::Warning);
    }

    #[test]
    fn a_webhook_is_a_problem_only_where_it_was_asked_for() {
        let down = Broken::NoEndpoints { namespace: "devsync-system".to_owned() };
        let of = |broken: &Broken, asked| judge(broken, asked, "fix".to_owned()).level;
        assert_eq!((of(&down, true), of(&down, false)), (Level::Problem, Level::Warning));
        assert_eq!(
            (of(&Broken::NoWebhook, true), of(&Broken::NoWebhook, false)),
            (Level::Problem, Level::Ok)
        );
        let older = Broken::Older { pod: "x".to_owned() };
        assert_eq!(of(&older, true), Level::Warning);
    }
}
