//! The probes of a container, and how long a breakpoint may hold the app before the kubelet ends it.

use k8s_openapi::api::core::v1::{Container, Probe};

/// What the API server fills in where nobody says it.
const PERIOD: i32 = 10;
const FAILURES: i32 = 3;
const TIMEOUT: i32 = 1;

/// A warning for a person; none where nothing ends a stopped app.
pub fn warning(container: &Container) -> Option<String> {
    let liveness = container.liveness_probe.as_ref()?;
    let seconds = held_for(liveness);
    let what = match (&liveness.http_get, &liveness.exec, &liveness.tcp_socket) {
        (Some(get), ..) => format!("GET {}", get.path.as_deref().unwrap_or("/")),
        (_, Some(_), _) => "a command".to_owned(),
        (.., Some(_)) => "a connection".to_owned(),
        _ => "a call".to_owned(),
    };
    Some(format!(
        "the liveness probe of container {} ({what}) has the kubelet end it once it is stopped for about {seconds} s",
        container.name
    ))
}

/// Seconds until the last failure that counts.
fn held_for(probe: &Probe) -> i32 {
    let period = probe.period_seconds.unwrap_or(PERIOD).max(1);
    let failures = probe.failure_threshold.unwrap_or(FAILURES).max(1);
    let timeout = probe.timeout_seconds.unwrap_or(TIMEOUT).max(1);
    period.saturating_mul(failures - 1).saturating_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_liveness_probe_is_told_with_its_patience() {
        let container = |probe: &str| {
            let json = format!(r#"{{"name": "app", {probe}}}"#);
            warning(&serde_json::from_str(&json).expect("a container"))
        };
        assert_eq!(container(r#""readinessProbe": {"tcpSocket": {"port": 1}}"#), None);
        let told =
            container(r#""livenessProbe": {"httpGet": {"path": "/ok", "port": 1}, "failureThreshold": 2}"#);
        assert!(told.is_some_and(|told| told.contains("GET /ok") && told.ends_with("about 11 s")));
    }
}
