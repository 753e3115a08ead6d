//! From an object with devsync in it to the object as it was.

use devsync_protocol::contract::annotation::{INJECTED, ORIGINAL};
use devsync_protocol::contract::{RUN_MOUNT, RUN_PROGRAM};
use serde_json::{Map, Value};

use crate::agent::agent_in;
use crate::inject::obstacle::is_ours;
use crate::inject::template::{self, Found, name};
use crate::original::{Fields, Original, restore};
use crate::outcome::Outcome;

/// Takes out what `inject` put in, and puts back what it replaced. Objects without it pass unchanged.
pub fn eject(object: &Value) -> Outcome {
    let path = match template::find(object) {
        Found::Nothing => return Outcome::default(),
        Found::List => return template::each(object, eject),
        Found::Template(path) => path,
    };
    let Some(template) = template::at(object, path) else { return Outcome::default() };
    let name = name(object);
    let mut outcome = out_of(template);
    outcome.object = outcome.object.map(|changed| template::with(object, path, changed));
    outcome.warnings.iter_mut().for_each(|warning| *warning = format!("{name}: {warning}"));
    outcome.did.iter_mut().for_each(|did| *did = format!("{name}: {did}"));
    outcome
}

/// The same for what has a pod's `metadata` and `spec`.
pub(crate) fn out_of(template: &Value) -> Outcome {
    let annotations = &template["metadata"]["annotations"];
    let warn = |why: &str| Outcome { warnings: vec![why.to_owned()], ..Outcome::default() };
    if annotations[INJECTED].as_str().is_none() {
        return match agent_in(&template["spec"]) {
            Some(_) => warn(
                "its agent was not put there by inject; hint: devsync detach takes out what attach added",
            ),
            None => Outcome::default(),
        };
    }
    let record = annotations[ORIGINAL].as_str().and_then(Original::read);
    let Some(mut template) = template.as_object().cloned() else { return Outcome::default() };
    let mut warnings = Vec::new();
    if record.is_none() {
        warnings.push(format!(
            "the annotation {ORIGINAL} cannot be read: what is devsync's is taken out, and what it replaced (command, \
             probes, image) stays as it is; hint: apply the manifest that this was made from"
        ));
    }
    let original = record.unwrap_or_default();
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        clear_spec(spec, &original);
    }
    clear_metadata(&mut template, &original);
    Outcome { object: Some(Value::Object(template)), did: vec!["devsync is taken out".to_owned()], warnings }
}

fn clear_spec(spec: &mut Map<String, Value>, original: &Original) {
    for field in ["containers", "initContainers", "volumes"] {
        drop_named(spec, field, is_ours);
    }
    if let Some(secret) = &original.pull_secret {
        drop_named(spec, "imagePullSecrets", |name| name == secret);
    }
    let nothing = Fields::new();
    for field in ["containers", "initContainers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            drop_named(container, "volumeMounts", is_ours);
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let fields = original.containers.get(name).unwrap_or(&nothing);
            restore(&still_ours(fields, container), container);
        }
    }
    restore(&original.spec, spec);
}

/// A command that somebody wrote over devsync-run since is theirs.
fn still_ours(fields: &Fields, container: &Map<String, Value>) -> Fields {
    let mut fields = fields.clone();
    let program = format!("{RUN_MOUNT}/{RUN_PROGRAM}");
    if container.get("command").is_none_or(|command| command[0] != program.as_str()) {
        fields.retain(|field, _| !["command", "args"].contains(&field.as_str()));
    }
    fields
}

fn clear_metadata(template: &mut Map<String, Value>, original: &Original) {
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.shift_remove(INJECTED);
            annotations.shift_remove(ORIGINAL);
        }
        restore(&original.metadata, metadata);
    }
    restore(&original.template, template);
}

/// Removes items of a list by their names.
fn drop_named(object: &mut Map<String, Value>, list: &str, is_dropped: impl Fn(&str) -> bool) {
    if let Some(items) = object.get_mut(list).and_then(Value::as_array_mut) {
        items.retain(|item| !item["name"].as_str().is_some_and(&is_dropped));
    }
}
