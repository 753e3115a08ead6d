//! Nothing that goes wrong keeps a pod from being made.

use anyhow::{Context, Result, ensure};
use devsync_cli::cli::ClusterArgs;
use devsync_cli::cluster::{Cluster, health};
use serde_json::json;

use super::{Installed, has_agent, pod, with_webhook};

/// What health says of the test's namespace and a pod of it.
fn health(installed: &Installed<'_>, pod: Option<&str>) -> Result<Vec<health::Finding>> {
    let args = ClusterArgs {
        kubeconfig: Some(installed.namespace.laptop.kubeconfig().to_owned()),
        ..ClusterArgs::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::connect(&args).await.map_err(|error| anyhow::anyhow!(error.line()))?;
        Ok(health::diagnose(&cluster, pod).await)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn an_unknown_value_of_an_annotation_is_a_warning_that_kubectl_shows() -> Result<()> {
    with_webhook(|installed| {
        let mut wrong = pod("wrong");
        wrong["metadata"]["annotations"] = json!({"devsync.dev/probes": "sideways"});
        let (_, said) = installed.tried(&[wrong], &installed.namespace.name)?;
        ensure!(said.contains("Warning") && said.contains("sideways") && said.contains("keep"), "{said}");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn pods_are_made_while_the_webhook_is_down_and_health_says_why_they_have_no_agent() -> Result<()> {
    with_webhook(|installed| {
        let namespace = installed.namespace;
        let place = &namespace.name;
        ensure!(health(installed, None)?.is_empty(), "{:?}", health(installed, None)?);
        installed.system(&["scale", "deployment", "devsync-injector", "--replicas=0"])?;
        namespace.until("no endpoints", || {
            let endpoints = installed.system_json(&["get", "endpoints", "devsync-injector"])?;
            Ok(endpoints["subsets"].is_null().then_some(()))
        })?;
        let mut stays = pod("stays");
        stays["spec"]["containers"][0]["image"] = json!("localhost/nowhere:1");
        namespace.apply(&stays.to_string())?;
        let made = namespace.kubectl.json(&["get", "pod", "stays"])?;
        ensure!(!has_agent(&made), "{made}");
        let found = health(installed, Some("stays"))?;
        let nobody = health::Finding::NoEndpoints { namespace: installed.system.clone() };
        ensure!(found == [nobody], "{found:?}");

        installed.system(&["scale", "deployment", "devsync-injector", "--replicas=1"])?;
        installed.system(&["rollout", "status", "deployment", "devsync-injector", "--timeout=50s"])?;
        namespace.until("pods with an agent again", || {
            Ok(has_agent(&installed.tried(&[pod("next")], place)?.0[0]).then_some(()))
        })?;
        let found = health(installed, Some("stays"))?;
        ensure!(found == [health::Finding::Unknown { pod: "stays".to_owned() }], "{found:?}");
        namespace.kubectl.run(&["label", "namespace", place, "devsync.dev/inject-"])?;
        let found = health(installed, Some("stays"))?;
        // Without the label no webhook is this namespace's own: another test's may be looked at too.
        let unlabelled = health::Finding::NotLabelled { namespace: place.clone() };
        ensure!(found.first() == Some(&unlabelled), "{found:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_broken_configuration_leaves_the_last_good_one() -> Result<()> {
    with_webhook(|installed| {
        let namespace = installed.namespace;
        let image_of = || -> Result<String> {
            let (tried, _) = installed.tried(&[pod("one")], &namespace.name)?;
            let containers = tried[0]["spec"]["containers"].as_array().context("containers")?;
            let agent = containers.iter().find(|c| c["name"] == "devsync-agent").context("an agent")?;
            Ok(agent["image"].as_str().unwrap_or_default().to_owned())
        };
        let configure = |text: &str| {
            let patch = json!({"data": {"config.yaml": text}}).to_string();
            installed.system(&["patch", "configmap", "devsync-injector", "--type=merge", "-p", &patch])
        };
        configure("agentImage: mirror.example/agent:2\n")?;
        namespace.until("the other image", || Ok((image_of()? == "mirror.example/agent:2").then_some(())))?;
        configure("agentImage: [\n")?;
        namespace.until("a word about it in the log", || {
            let log = installed.system(&["logs", "-l", "app.kubernetes.io/name=devsync-injector"])?;
            Ok(log.contains("the last good configuration stays in use").then_some(()))
        })?;
        ensure!(image_of()? == "mirror.example/agent:2");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn who_may_not_install_is_told_which_rights_are_missing() -> Result<()> {
    super::namespace::with_namespace(crate::pods::programs()?, |namespace| {
        let project = super::Project::copy(super::Language::Rust, namespace.path("adder"))?;
        let dev = namespace.as_user("dev")?;
        let mut command =
            namespace.command(&project, &["install", "--yes", "-n", &format!("{}-system", namespace.name)]);
        command.env("KUBECONFIG", dev.kubeconfig());
        let said = devsync_tests::cluster::said::Said::by(command)?;
        said.refused(&["rights", "mutatingwebhookconfigurations", "clusterroles", "\"patch\""])?;
        Ok(())
    })
}
