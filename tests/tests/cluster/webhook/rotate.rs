//! Certificates are replaced while pods are made, and nobody notices.

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;

use super::{Installed, has_agent, pod, with_webhook};

/// Pods of one request.
const POD_COUNT: usize = 20;
/// What is made at once when a whole cluster comes up.
const BURST: usize = 1000;

fn pods(count: usize) -> Vec<Value> {
    (0..count).map(|number| pod(&format!("pod-{number}"))).collect()
}

/// Has pods made; all must have an agent.
fn all_injected(installed: &Installed<'_>, count: usize) -> Result<()> {
    let (made, said) = installed.tried(&pods(count), &installed.namespace.name)?;
    let with = made.iter().filter(|pod| has_agent(pod)).count();
    ensure!(with == count, "{with} of {count} pods have an agent: {said}");
    Ok(())
}

/// The certificate that is served, and how many authorities are trusted.
fn state(installed: &Installed<'_>) -> Result<(String, usize)> {
    let secret = installed.system_json(&["get", "secret", "devsync-injector-tls"])?;
    let served = secret["data"]["tls.crt"].as_str().unwrap_or_default().to_owned();
    let configuration = installed.namespace.kubectl.run(&[
        "get",
        "mutatingwebhookconfiguration",
        &installed.configuration(),
        "-o",
        "json",
    ])?;
    let configuration: Value = serde_json::from_str(&configuration)?;
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default();
    // Each of the two is about as long; what is compared is the Secret's own list.
    let trusted = secret["data"]["ca.crt"].as_str().unwrap_or_default();
    let count = if bundle == trusted { 1 + usize::from(trusted.len() > 1400) } else { 0 };
    Ok((served, count))
}

#[test]
#[ignore = "needs: cluster"]
fn no_pod_goes_without_an_agent_while_certificates_are_replaced() -> Result<()> {
    with_webhook(|installed| {
        let (first, _) = state(installed)?;
        all_injected(installed, POD_COUNT)?;
        installed.system(&["annotate", "secret", "devsync-injector-tls", "devsync.dev/rotate=one"])?;
        let mut both = false;
        installed.namespace.until("another certificate, and its authority alone", || {
            all_injected(installed, POD_COUNT)?;
            let (served, trusted) = state(installed)?;
            both |= trusted == 2;
            Ok((served != first && trusted == 1).then_some(()))
        })?;
        ensure!(both, "both authorities were trusted for a while");
        all_injected(installed, POD_COUNT)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_burst_of_a_thousand_pods_is_injected() -> Result<()> {
    // kubectl sends five objects a second: many of them make a burst.
    with_webhook(|installed| {
        std::thread::scope(|scope| {
            let parts: Vec<_> =
                (0..BURST / POD_COUNT).map(|_| scope.spawn(|| all_injected(installed, POD_COUNT))).collect();
            parts.into_iter().try_for_each(|part| part.join().map_err(|_| anyhow!("a panic"))?)
        })
    })
}
