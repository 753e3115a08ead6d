//! The agent's container, the volume for its state, and the process namespace that it shares with the app.

use serde_json::{Value, json};

use super::keys;
use super::pod::Pod;
use crate::agent::{Agent, volume};
use crate::security::{self, Runs};

impl Pod<'_> {
    pub(super) fn add_agent(&mut self) {
        let agent = self.agent();
        self.share_processes();
        self.push("volumes", volume());
        let mut container = agent.container();
        if let Some(file) = self.add_keys() {
            add(&mut container, "args", [json!("--authorized-keys"), json!(file)]);
            add(&mut container, "volumeMounts", [keys::mount()]);
        }
        self.add_pull_secret(agent.pull_secret);
        self.agent = container;
        if !self.place.native_sidecars {
            self.push("containers", self.agent.clone());
        }
    }

    /// As the last of the init containers: whatever they prepare is there before it. From 1.29 on the kubelet ends it
    /// after the app, and a Job does not wait for it.
    pub(super) fn add_native_agent(&mut self) {
        if self.place.native_sidecars {
            let mut container = self.agent.clone();
            if let Some(fields) = container.as_object_mut() {
                fields.insert("restartPolicy".to_owned(), json!("Always"));
            }
            self.push("initContainers", container);
        }
    }

    fn agent(&mut self) -> Agent {
        let asked = &self.asked;
        let (fit, note) =
            security::fit_for(&self.spec_value(), self.app(), self.place.level, asked.run_as, asked.ptrace);
        let agent = Agent {
            image: asked.agent_image.clone(),
            pull_policy: self.config.image_pull_policy.clone(),
            pull_secret: self.config.image_pull_secret.clone(),
            resources: self.resources(),
            ..Agent::new(fit.context.clone())
        };
        self.did.push(format!("the agent, {}, as {}", agent.image, fit.words()));
        if fit.runs == Runs::Given {
            self.warnings.push(format!(
                "runAsUser and runAsGroup of container {} are not both stated: where the agent's ids differ it cannot \
                 reach the app; hint: state them in its securityContext",
                self.app()["name"].as_str().unwrap_or_default()
            ));
        }
        self.warnings.extend(note);
        agent
    }

    /// A pod that states resources as a whole has them for all of its containers, and refuses more in sum.
    pub(super) fn resources(&self) -> Value {
        let of_pod = self.spec.get("resources").and_then(Value::as_object);
        if of_pod.is_some_and(|resources| !resources.is_empty()) && !self.asked.own_resources {
            return Value::Null;
        }
        self.asked.resources.clone()
    }

    fn share_processes(&mut self) {
        match self.spec.get("shareProcessNamespace") {
            Some(Value::Bool(true)) => return,
            Some(Value::Bool(false)) => self.warnings.push(
                "shareProcessNamespace is true now, and was false: the agent reaches the app in no other way; hint: \
                 annotation devsync.dev/inject: disabled"
                    .to_owned(),
            ),
            _ => {}
        }
        self.set_in_spec("shareProcessNamespace", json!(true));
        self.did.push("shareProcessNamespace".to_owned());
    }

    fn add_pull_secret(&mut self, secret: Option<String>) {
        let Some(secret) = secret else { return };
        let known = self.spec.get("imagePullSecrets").and_then(Value::as_array).into_iter().flatten();
        if known.into_iter().any(|known| known["name"] == secret.as_str()) {
            return;
        }
        self.push("imagePullSecrets", json!({"name": secret}));
        self.original.pull_secret = Some(secret);
    }
}

fn add<const N: usize>(container: &mut Value, list: &str, items: [Value; N]) {
    if let Some(list) = container.get_mut(list).and_then(Value::as_array_mut) {
        list.extend(items);
    }
}
