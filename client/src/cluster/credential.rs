//! A kubeconfig's credential plugin, run once for a login. kube runs it for each part of a client that it makes (the
//! header, the certificate, its end), and a plugin may open a browser. What it prints is never shown.

use std::process::Stdio;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::error::{CommandError, Kind};

/// Tokens and certificates are some kilobytes.
const LONGEST: u64 = 1 << 20;

/// What a plugin answers with.
#[derive(Deserialize)]
struct ExecCredential {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// Puts what the plugin answers in the plugin's place, where there is one that counts; gives its end, if it has one.
pub(super) async fn settle(auth: &mut AuthInfo, context: &str) -> Result<Option<Timestamp>, CommandError> {
    // Whatever stands beside it goes first, as kube has it.
    let has_other = auth.auth_provider.is_some()
        || auth.token.is_some()
        || auth.token_file.is_some()
        || (auth.username.is_some() && auth.password.is_some());
    let Some(exec) = auth.exec.take_if(|_| !has_other) else { return Ok(None) };
    let status = ask(&exec).await.map_err(|why| {
        let name = exec.command.as_deref().unwrap_or_default();
        let hint = exec.install_hint.as_deref().map(|hint| format!("; {}", hint.trim())).unwrap_or_default();
        CommandError::new(format!("the cluster of context {context} cannot be logged in to"))
            .kind(Kind::Cluster)
            .cause(why)
            .hint(format!("the kubeconfig's credential plugin {name} must work by itself: try kubectl{hint}"))
    })?;
    auth.token = status.token.map(Into::into);
    // A certificate beside the plugin serves on where the plugin gives a token alone.
    if let Some(certificate) = status.client_certificate_data {
        auth.client_certificate_data = Some(base64(certificate));
        auth.client_key_data = status.client_key_data.map(|key| base64(key).into());
    }
    Ok(status.expiration_timestamp.and_then(|end| end.parse().ok()))
}

/// As a kubeconfig holds it.
fn base64(text: String) -> String {
    let value = serde_json::to_value(ByteString(text.into_bytes()));
    value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Runs it as kubectl does: with what it may need to know in KUBERNETES_EXEC_INFO.
async fn ask(exec: &ExecConfig) -> Result<Status, String> {
    let program = exec.command.as_ref().ok_or("the kubeconfig names no program for the credential plugin")?;
    let is_interactive = exec.interactive_mode != Some(ExecInteractiveMode::Never);
    let cluster = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info);
    let mut spec = json!({"interactive": is_interactive});
    if let Some(cluster) = cluster {
        spec["cluster"] = serde_json::to_value(cluster).unwrap_or_default();
    }
    let info = json!({"apiVersion": exec.api_version, "kind": "ExecCredential", "spec": spec});
    let mut command = Command::new(program);
    command.args(exec.args.iter().flatten());
    for variable in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    exec.drop_env.iter().flatten().for_each(|name| {
        command.env_remove(name);
    });
    command.stdin(if is_interactive { Stdio::inherit() } else { Stdio::null() });
    // What it says to a person is for the person.
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let lost = |error: std::io::Error| format!("the credential plugin {program} cannot be run: {error}");
    let mut child = command.spawn().map_err(lost)?;
    let mut said = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(LONGEST).read_to_end(&mut said).await.map_err(lost)?;
    }
    let ended = child.wait().await.map_err(lost)?;
    if !ended.success() {
        return Err(format!("the credential plugin ended with {ended}"));
    }
    // Some answer in YAML, which JSON is too.
    let answer: ExecCredential =
        serde_saphyr::from_slice(&said).map_err(|_| "the credential plugin's answer cannot be read")?;
    match &answer.status {
        Status { token: None, client_certificate_data: None, .. } => {
            Err("the credential plugin gave neither a token nor a certificate".to_owned())
        }
        _ => Ok(answer.status),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn plugin(script: &str) -> AuthInfo {
        let exec = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh",
            "args": ["-c", script], "env": [{"name": "OWN", "value": "T"}], "interactiveMode": "Never"}});
        serde_json::from_value(exec).expect("a user")
    }

    #[tokio::test]
    async fn the_answer_takes_the_plugin_s_place() {
        let script = r#"echo "{\"status\": {\"token\": \"$OWN-1\", \"clientCertificateData\": \"C\",
            \"clientKeyData\": \"K\", \"expirationTimestamp\": \"2030-01-02T03:04:05Z\"}}""#;
        let mut auth = plugin(script);
        let end = settle(&mut auth, "dev").await.expect("an answer");
        assert_eq!(end.map(|end| end.to_string()).as_deref(), Some("2030-01-02T03:04:05Z"));
        assert!(auth.exec.is_none() && auth.token.is_some() && auth.client_key_data.is_some());
        assert_eq!(auth.client_certificate_data.as_deref(), Some("Qw=="));
        let mut asked =
            plugin("test -z \"${KUBERNETES_EXEC_INFO##*ExecCredential*}\" && echo 'status: {token: y}'");
        assert_eq!(settle(&mut asked, "dev").await.expect("YAML"), None);
    }

    #[tokio::test]
    async fn a_plugin_that_fails_is_named_and_its_secrets_are_not_shown() {
        for (script, why) in [
            ("echo TOKEN-1; exit 3", "exit status: 3"),
            ("echo TOKEN-1: [", "cannot be read"),
            ("echo 'status: {}'", "neither a token nor a certificate"),
        ] {
            let error = settle(&mut plugin(script), "dev").await.expect_err(script);
            let said = format!("{} {:?}", error.line(), error.get_hint());
            assert!(said.contains(why) && said.contains("sh must work by itself"), "{said}");
            assert!(!said.contains("TOKEN"), "{said}");
        }
        let mut other = plugin("exit 1");
        other.username = Some("ann".to_owned());
        other.token = Some("T".to_owned().into());
        assert!(settle(&mut other, "dev").await.is_ok());
    }
}
