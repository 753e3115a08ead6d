//! The app's probes in development: a kubelet that kills what is being changed helps nobody.

use serde_json::{Map, Value, json};

use super::pod::Pod;
use crate::annotations::Probes;
use crate::original::{remove, set};

/// How long a relaxed probe may fail before the kubelet acts: time to look at a stopped app, or for one that compiles
/// as it starts.
const PATIENCE: u64 = 600;
/// How long one relaxed probe may take, in seconds.
const ANSWER: u64 = 10;
/// Kubernetes' defaults.
const PERIOD: u64 = 10;
const THRESHOLD: u64 = 3;
const TIMEOUT: u64 = 1;

impl Pod<'_> {
    /// Liveness and startup are relaxed, and gone where devsync-run holds a crashed app, which answers none; readiness
    /// decides about traffic alone and stays.
    pub(super) fn change_probes(&mut self) {
        for index in self.apps.clone() {
            let is_held = self.wrapped.contains(&index);
            let name = self.container_name(index).to_owned();
            let removed: &[&str] = match self.asked.probes {
                Probes::Keep => {
                    if is_held
                        && ["livenessProbe", "startupProbe"]
                            .iter()
                            .any(|p| self.container(index).get(p).is_some())
                    {
                        self.warnings.push(format!(
                            "container {name} keeps its probes: the kubelet ends it while devsync-run holds a crashed \
                             app; hint: annotation devsync.dev/probes: relax"
                        ));
                    }
                    continue;
                }
                Probes::Strip => &["livenessProbe", "startupProbe", "readinessProbe"],
                Probes::Relax if is_held => &["livenessProbe", "startupProbe"],
                Probes::Relax => {
                    self.relax(index, &name);
                    continue;
                }
            };
            for probe in removed {
                if self.change(index, |fields, container| remove(fields, container, probe)) {
                    self.did.push(format!("container {name} is without {probe}"));
                }
            }
        }
    }

    fn relax(&mut self, index: usize, name: &str) {
        for probe in ["livenessProbe", "startupProbe"] {
            let Some(relaxed) = self.container(index).get(probe).and_then(Value::as_object).map(relaxed)
            else {
                continue;
            };
            if relaxed == self.container(index)[probe] {
                continue;
            }
            self.change(index, |fields, container| set(fields, container, probe, relaxed));
            self.did.push(format!("container {name} has a relaxed {probe}"));
        }
    }
}

/// Ten minutes of failures, and ten seconds for an answer; what is more already stays.
fn relaxed(probe: &Map<String, Value>) -> Value {
    let number =
        |field: &str, default| probe.get(field).and_then(Value::as_u64).filter(|n| *n > 0).unwrap_or(default);
    let failures =
        number("failureThreshold", THRESHOLD).max(PATIENCE.div_ceil(number("periodSeconds", PERIOD)));
    let timeout = number("timeoutSeconds", TIMEOUT).max(ANSWER);
    let mut relaxed = probe.clone();
    relaxed.insert("timeoutSeconds".to_owned(), json!(timeout));
    relaxed.insert("failureThreshold".to_owned(), json!(failures));
    Value::Object(relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(probe: Value) -> Value {
        relaxed(probe.as_object().expect("an object"))
    }

    #[test]
    fn ten_minutes_whatever_the_period() {
        let relaxed = with(json!({"httpGet": {"port": 1}}));
        assert_eq!(relaxed, json!({"httpGet": {"port": 1}, "timeoutSeconds": 10, "failureThreshold": 60}));
        assert_eq!(with(json!({"periodSeconds": 7}))["failureThreshold"], 86);
        assert_eq!(with(json!({"periodSeconds": 900}))["failureThreshold"], 3);
        assert_eq!(with(json!({"periodSeconds": 0, "timeoutSeconds": "x"}))["failureThreshold"], 60);
    }

    #[test]
    fn what_is_patient_stays() {
        let patient = json!({"periodSeconds": 10, "failureThreshold": 100, "timeoutSeconds": 30});
        assert_eq!(with(patient.clone()), patient);
    }
}
