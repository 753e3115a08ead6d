//! From an object to the same object with the agent in its pods.

pub(crate) mod template;

use serde_json::{Value, json};

use crate::agent::{Agent, agent_in, volume};
use crate::config::Config;
use crate::outcome::{Outcome, Place};
use crate::security::fit;

/// Puts the agent into the pods that an object describes. Objects of other kinds pass unchanged.
pub fn inject(object: &Value, config: &Config, place: &Place) -> Outcome {
    let Some(path) = template::path(object) else { return Outcome::default() };
    let mut changed = object.clone();
    let Some(spec) = template::at(&mut changed, path).and_then(|t| t.get_mut("spec")) else {
        return Outcome::default();
    };
    if agent_in(spec).is_some() || !spec["containers"][0].is_object() {
        return Outcome::default();
    }
    let fit = fit(spec, &spec["containers"][0], place.level);
    let agent = Agent {
        image: config.agent_image.clone(),
        pull_policy: config.image_pull_policy.clone(),
        pull_secret: config.image_pull_secret.clone(),
        ..Agent::new(fit.context.clone())
    };
    let Some(fields) = spec.as_object_mut() else { return Outcome::default() };
    fields.insert("shareProcessNamespace".to_owned(), json!(true));
    for (list, item) in [("containers", agent.container()), ("volumes", volume())] {
        if let Some(items) = fields.entry(list).or_insert_with(|| json!([])).as_array_mut() {
            items.push(item);
        }
    }
    Outcome { object: Some(changed), did: vec!["the agent".to_owned()], warnings: Vec::new() }
}
