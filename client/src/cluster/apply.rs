//! Server-side apply of one manifest of any kind, as devsync's field manager. Never with force: whose field it is, is
//! told.

use devsync_protocol::contract::FIELD_MANAGER;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use serde_json::Value;
use tokio::time::timeout;

use super::sidecar::explain_conflict;
use super::{ANSWER_WITHIN, Cluster};
use crate::error::{CommandError, Kind};
use crate::report::plain_line;

/// What an object of a running cluster has and nobody may apply, or means another one that had its name.
const SERVERS: [&str; 6] =
    ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Created,
    Changed,
    Same,
}

/// Applies an object; gives its name as kubectl writes it. `namespace` is what was asked for by name: an object that
/// says another one is refused.
pub async fn apply_object(
    cluster: &Cluster,
    object: &Value,
    namespace: Option<&str>,
    dry_run: bool,
) -> Result<(String, Applied), CommandError> {
    let text = |value: &Value| plain_line(value.as_str().unwrap_or_default());
    let metadata = &object["metadata"];
    let (kind, name) = (text(&object["kind"]), text(&metadata["name"]));
    let shown = format!("{}/{name}", kind.to_lowercase());
    if name.is_empty() {
        return Err(CommandError::usage(format!("a {kind} without a name cannot be applied")).hint(
            "give it metadata.name: apply says how one object is, and generateName makes a new one each time",
        ));
    }
    let own = metadata["namespace"].as_str();
    if let (Some(own), Some(asked)) = (own, namespace)
        && own != asked
    {
        return Err(CommandError::usage(format!("{shown} is of namespace {}", plain_line(own)))
            .cause(format!("--namespace says {asked}"))
            .hint("leave the option out, or the namespace out of the manifest"));
    }
    let api = api(cluster, object, own, &shown).await?;
    let doing = format!("{shown} cannot be read");
    let before = cluster.ask(&doing, api.get_opt(&name)).await?;
    let params =
        PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let document = document(object);
    let patched = timeout(ANSWER_WITHIN, api.patch(&name, &params, &Patch::Apply(&document))).await;
    let after = match patched {
        Ok(Ok(after)) => after,
        Ok(Err(error)) => return Err(explain_conflict(cluster, error, &shown)),
        Err(_) => {
            return Err(CommandError::new(format!("{shown} cannot be applied"))
                .kind(Kind::Cluster)
                .cause(format!("{} did not answer within {} s", cluster.server, ANSWER_WITHIN.as_secs())));
        }
    };
    let applied = match before {
        None => Applied::Created,
        Some(before) if content(&before) == content(&after) => Applied::Same,
        Some(_) => Applied::Changed,
    };
    Ok((shown, applied))
}

/// Where such objects are, as the server has them.
async fn api(
    cluster: &Cluster,
    object: &Value,
    namespace: Option<&str>,
    shown: &str,
) -> Result<Api<DynamicObject>, CommandError> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = object["kind"].as_str().unwrap_or_default();
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let found = timeout(ANSWER_WITHIN, oneshot::pinned_kind(&cluster.client, &gvk)).await;
    let unknown = || {
        let version = plain_line(object["apiVersion"].as_str().unwrap_or("(none)"));
        CommandError::new(format!("{shown} cannot be applied"))
            .kind(Kind::Cluster)
            .cause(format!("{} has no kind {} of {version}", cluster.server, plain_line(kind)))
            .hint(format!("kubectl api-resources{} shows what it has", cluster.context_flag()))
    };
    let (resource, capabilities) = match found {
        Ok(Ok(found)) => found,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Err(unknown()),
        Ok(Err(kube::Error::Discovery(_))) => return Err(unknown()),
        Ok(Err(error)) => return Err(cluster.explain(error, &format!("{shown} cannot be applied"))),
        Err(_) => return Err(unknown()),
    };
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(cluster.client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = namespace.unwrap_or(&cluster.namespace);
            Api::namespaced_with(cluster.client.clone(), namespace, &resource)
        }
    })
}

/// What is sent: what `kubectl get` printed is taken too.
fn document(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|field, _| !SERVERS.contains(&field.as_str()));
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// What two versions are compared by: who manages which field is no content.
fn content(object: &DynamicObject) -> Value {
    document(&serde_json::to_value(object).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_wrote_is_not_applied() {
        let live = json!({"kind": "Pod", "metadata": {"name": "x", "uid": "u", "managedFields": [{}],
            "resourceVersion": "7", "labels": {"a": "b"}}, "spec": {}, "status": {"phase": "Running"}});
        let sent = json!({"kind": "Pod", "metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {}});
        assert_eq!(document(&live), sent);
        assert_eq!(document(&sent), sent);
    }
}
