//! A pod, or a pod's template, while devsync is put into it: every change goes through here, so that it is noted.

use serde_json::{Map, Value, json};

use super::state;
use super::template::list;
use crate::annotations::Asked;
use crate::config::Config;
use crate::original::{self, Fields, Original};
use crate::outcome::Place;

pub(super) struct Pod<'a> {
    /// What has `metadata` and `spec`.
    pub template: Map<String, Value>,
    pub spec: Map<String, Value>,
    pub asked: Asked,
    pub config: &'a Config,
    pub place: &'a Place,
    /// The app's containers: places in the spec's list.
    pub apps: Vec<usize>,
    /// The agent's container, until it has its place.
    pub agent: Value,
    /// Whether an init container brings devsync-run.
    pub is_installed: bool,
    /// Of the app's containers: those with a workspace volume, those under devsync-run.
    pub seeded: Vec<usize>,
    pub wrapped: Vec<usize>,
    pub original: Original,
    pub did: Vec<String>,
    pub warnings: Vec<String>,
}

impl<'a> Pod<'a> {
    /// Takes a template whose lists are lists; the error are warnings.
    pub(super) fn new(template: &Value, config: &'a Config, place: &'a Place) -> Result<Self, Vec<String>> {
        let metadata = &template["metadata"];
        let (asked, mut warnings) = Asked::read(metadata, config);
        let (Some(template), Some(spec)) = (template.as_object(), template["spec"].as_object()) else {
            return Err(warnings);
        };
        if let Some(why) = malformed(template, spec) {
            warnings.push(format!("not injected: {why}"));
            return Err(warnings);
        }
        let original = Original::new(place.level, state::asked(metadata));
        Ok(Self {
            spec: spec.clone(),
            template: template.clone(),
            asked,
            config,
            place,
            apps: Vec::new(),
            agent: Value::Null,
            is_installed: false,
            seeded: Vec::new(),
            wrapped: Vec::new(),
            original,
            did: Vec::new(),
            warnings,
        })
    }

    pub(super) fn containers(&self) -> &[Value] {
        list(&self.spec, "containers")
    }

    pub(super) fn container(&self, index: usize) -> &Value {
        self.containers().get(index).unwrap_or(&Value::Null)
    }

    pub(super) fn container_name(&self, index: usize) -> &str {
        self.container(index)["name"].as_str().unwrap_or_default()
    }

    /// The spec as one value, for functions that read it.
    pub(super) fn spec_value(&self) -> Value {
        Value::Object(self.spec.clone())
    }

    /// Changes a container, with the notes of what its fields were.
    pub(super) fn change<T: Default>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Fields, &mut Map<String, Value>) -> T,
    ) -> T {
        let name = self.container_name(index).to_owned();
        let containers = self.spec.get_mut("containers").and_then(Value::as_array_mut);
        let container = containers.and_then(|all| all.get_mut(index)?.as_object_mut());
        let Some(container) = container else { return T::default() };
        let mut fields = self.original.containers.remove(&name).unwrap_or_default();
        let result = change(&mut fields, container);
        if !fields.is_empty() {
            self.original.containers.insert(name, fields);
        }
        result
    }

    pub(super) fn set_in_spec(&mut self, field: &str, value: Value) {
        original::set(&mut self.original.spec, &mut self.spec, field, value);
    }

    /// Adds to the end of a list of the spec.
    pub(super) fn push(&mut self, field: &str, item: Value) {
        push(&mut self.original.spec, &mut self.spec, field, item);
    }

    /// Mounts a volume in a container.
    pub(super) fn mount(&mut self, index: usize, mount: Value) {
        self.change(index, |fields, container| push(fields, container, "volumeMounts", mount));
    }
}

fn push(fields: &mut Fields, object: &mut Map<String, Value>, field: &str, item: Value) {
    if let Some(items) = original::entry(fields, object, field, json!([])).as_array_mut() {
        items.push(item);
    }
}

/// Why the parts that devsync works on are not what the API would take: said here, and not by a panic.
fn malformed(template: &Map<String, Value>, spec: &Map<String, Value>) -> Option<String> {
    let metadata = template.get("metadata").unwrap_or(&Value::Null);
    if !(metadata.is_null() || metadata.is_object()) {
        return Some("metadata is no object".to_owned());
    }
    let annotations = &metadata["annotations"];
    if !(annotations.is_null() || annotations.is_object()) {
        return Some("metadata.annotations is no object".to_owned());
    }
    for field in ["containers", "initContainers", "volumes", "imagePullSecrets"] {
        let value = spec.get(field).unwrap_or(&Value::Null);
        let is_list = value.as_array().is_some_and(|items| items.iter().all(Value::is_object));
        if !(is_list || value.is_null() && field != "containers") {
            return Some(format!("spec.{field} is no list of objects"));
        }
    }
    let all = list(spec, "containers").iter().chain(list(spec, "initContainers"));
    let mut names: Vec<&str> = Vec::new();
    for container in all {
        let Some(name) = container["name"].as_str().filter(|name| !name.is_empty()) else {
            return Some("a container has no name".to_owned());
        };
        if names.contains(&name) {
            return Some(format!("two containers are called {name}"));
        }
        names.push(name);
        let mounts = &container["volumeMounts"];
        if !(mounts.is_null() || mounts.is_array()) {
            return Some(format!("volumeMounts of container {name} is no list"));
        }
    }
    list(spec, "containers").is_empty().then(|| "it has no containers".to_owned())
}
