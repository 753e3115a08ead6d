//! The whole filter, text in and text out: a stream of manifests, or a ResourceList of a KRM function. Pure.
//! Documents that need no change keep their bytes; nothing comes out where any of them cannot be read.

use std::collections::BTreeMap;

use devsync_protocol::contract::{DISABLED, ENABLED, INJECT, annotation};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::documents::{self, Document, DocumentError, Stream};
use crate::inject::template::{self, Found};
use crate::outcome::{Outcome, Place};
use crate::security::Level;

/// The group of KRM functions' documents.
const KRM: &str = "config.kubernetes.io/";

/// What is to be done, and with what.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub config: Config,
    /// The namespace's Pod Security level. Where nobody says it, a Namespace in the same stream does, else `privileged`.
    pub level: Option<Level>,
    pub native_sidecars: bool,
    /// Annotations that each pod gets before: a name of [`crate::annotations::TABLE`], and a value.
    pub asked: Vec<(String, String)>,
    /// Take devsync out.
    pub eject: bool,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    pub text: String,
    pub did: Vec<String>,
    pub warnings: Vec<String>,
}

/// Why a ResourceList was not filtered.
#[derive(Debug, thiserror::Error)]
pub enum KrmError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("standard input is no ResourceList of {KRM}v1")]
    NoList,
    /// Told in the list's results too.
    #[error("functionConfig: {why}")]
    Config { why: String, text: String },
}

impl Filter {
    /// One object, for those who have it as a value.
    pub fn object(&self, object: &Value) -> Outcome {
        self.one(object, &BTreeMap::new())
    }

    /// A stream of YAML documents or JSON values.
    pub fn stream(&self, bytes: &[u8]) -> Result<(Stream, Filtered), DocumentError> {
        let mut stream = documents::read(bytes)?;
        let levels = levels(stream.documents.iter().filter_map(Document::value));
        let (mut all, mut lost) = (Outcome::default(), Vec::new());
        for document in &mut stream.documents {
            let Some(value) = document.value() else { continue };
            let name = kind_of(value).map(|_| template::name(value));
            let Some(name) = name else {
                let line = document.line();
                all.warnings.push(format!("line {line}: a document without a kind passes as it came"));
                continue;
            };
            let outcome = self.one(value, &levels);
            if let Some(changed) = outcome.object {
                document.replace(changed);
            }
            if !document.loses().is_empty() {
                lost.push(format!("{name} ({})", document.loses().join(", ")));
            }
            all.did.extend(outcome.did);
            all.warnings.extend(outcome.warnings);
        }
        if !lost.is_empty() {
            let lost = lost.join(", ");
            all.warnings.push(format!("written anew, without what YAML's values do not hold: {lost}"));
        }
        let text = stream.write();
        Ok((stream, Filtered { text, did: all.did, warnings: all.warnings }))
    }

    /// A ResourceList, as kustomize gives it to a function. Its functionConfig adds to what is asked here.
    pub fn krm(&self, bytes: &[u8]) -> Result<Filtered, KrmError> {
        let mut stream = documents::read(bytes)?;
        let mut lists = stream.documents.iter_mut().filter(|document| document.value().is_some());
        let (Some(document), None) = (lists.next(), lists.next()) else { return Err(KrmError::NoList) };
        let Some(list) = document.value().filter(|value| is_resource_list(value)).cloned() else {
            return Err(KrmError::NoList);
        };
        let told = self.told_by(&list["functionConfig"]);
        let (changed, all) = match &told {
            Ok(filter) => filter.items(list),
            Err(why) => (with_results(list, vec![result("error", why, None)]), Outcome::default()),
        };
        document.replace(changed);
        let text = stream.write();
        match told {
            Ok(_) => Ok(Filtered { text, did: all.did, warnings: all.warnings }),
            Err(why) => Err(KrmError::Config { why, text }),
        }
    }

    fn items(&self, mut list: Value) -> (Value, Outcome) {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let levels = levels(items.iter());
        let (mut all, mut results, mut changed) = (Outcome::default(), Vec::new(), Vec::new());
        for item in items {
            let outcome = self.one(&item, &levels);
            let tell = |severity: &'static str| {
                let item = &item;
                move |line: &String| result(severity, line, Some(item))
            };
            results.extend(outcome.did.iter().map(tell("info")));
            results.extend(outcome.warnings.iter().map(tell("warning")));
            changed.push(outcome.object.unwrap_or(item));
            all.did.extend(outcome.did);
            all.warnings.extend(outcome.warnings);
        }
        if list["items"].is_array() {
            list["items"] = Value::Array(changed);
        }
        (with_results(list, results), all)
    }

    /// With what a functionConfig says: `data` of a ConfigMap, or `spec` of anything, has the names of the options.
    fn told_by(&self, config: &Value) -> Result<Self, String> {
        let mut told = self.clone();
        for fields in ["data", "spec"].iter().filter_map(|field| config[*field].as_object()) {
            for (name, value) in fields {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Bool(_) | Value::Number(_) => value.to_string(),
                    _ => return Err(format!("{name} is no text")),
                };
                told.set(name, &text)?;
            }
        }
        Ok(told)
    }

    /// One option by its name on the command line.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let flag = || value.parse().map_err(|_| format!("{name} is {value:?}, and true or false is meant"));
        match name {
            "level" => self.level = Some(level(value).ok_or_else(|| unknown_level(value))?),
            "eject" => self.eject = flag()?,
            "native-sidecars" => self.native_sidecars = flag()?,
            "agent-image" => self.config.agent_image = value.to_owned(),
            "image-pull-secret" => self.config.image_pull_secret = Some(value.to_owned()),
            name => {
                let annotation = annotation_of(name).ok_or_else(|| unknown_option(name))?;
                self.asked.push((annotation, value.to_owned()));
            }
        }
        Ok(())
    }

    fn one(&self, object: &Value, levels: &BTreeMap<String, Level>) -> Outcome {
        if self.eject {
            return crate::eject(object);
        }
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let level = self.level.or_else(|| levels.get(namespace).copied()).unwrap_or(Level::Privileged);
        let place = Place { level, native_sidecars: self.native_sidecars };
        let mut outcome = crate::inject(&self.ask(object), &self.config, &place);
        if outcome.object.is_none() {
            // Who pipes manifests of all environments wants to know which were left out; a webhook's user does not.
            outcome.warnings.extend(refusals(object));
        }
        outcome
    }

    /// The object with the annotations that are asked for on its pods.
    fn ask(&self, object: &Value) -> Value {
        if self.asked.is_empty() {
            return object.clone();
        }
        match template::find(object) {
            Found::Nothing => object.clone(),
            Found::List => {
                let mut list = object.clone();
                for item in list["items"].as_array_mut().into_iter().flatten() {
                    if !matches!(template::find(item), Found::List) {
                        *item = self.ask(item);
                    }
                }
                list
            }
            Found::Template(path) => match template::at(object, path) {
                Some(pod) => template::with(object, path, self.annotated(pod.clone())),
                None => object.clone(),
            },
        }
    }

    fn annotated(&self, mut pod: Value) -> Value {
        let Some(fields) = pod.as_object_mut() else { return pod };
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else { return pod };
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if annotations.is_null() {
            *annotations = json!({});
        }
        if let Some(annotations) = annotations.as_object_mut() {
            let asked = self.asked.iter().map(|(name, value)| (name.clone(), json!(value)));
            annotations.extend(asked.collect::<Map<_, _>>());
        }
        pod
    }
}

/// What an object's pods say against devsync, as a warning each.
fn refusals(object: &Value) -> Vec<String> {
    let items = match template::find(object) {
        Found::List => object["items"].as_array().map(Vec::as_slice).unwrap_or_default(),
        _ => std::slice::from_ref(object),
    };
    items.iter().filter_map(refusal).collect()
}

fn refusal(object: &Value) -> Option<String> {
    let Found::Template(path) = template::find(object) else { return None };
    let metadata = &template::at(object, path)?["metadata"];
    let marks = [("annotation", "annotations"), ("label", "labels")];
    let mark = marks.iter().find(|(_, place)| metadata[*place].get(INJECT).is_some_and(|v| v != ENABLED));
    mark.map(|(mark, _)| {
        let name = template::name(object);
        format!(
            "{name}: left as it was: its pods have the {mark} {INJECT}: {DISABLED}, as production's have; hint: it goes \
             without that {mark} where it is for development"
        )
    })
}

/// A level by its name.
pub fn level(name: &str) -> Option<Level> {
    match name {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn unknown_level(value: &str) -> String {
    format!("level is {value:?}, and privileged, baseline or restricted is meant")
}

fn unknown_option(name: &str) -> String {
    let names = crate::annotations::TABLE.iter().map(|row| row.name.trim_start_matches(annotation::PREFIX));
    let names = names.collect::<Vec<_>>().join(", ");
    format!("unknown option {name:?}: level, eject, native-sidecars, image-pull-secret, {names}")
}

fn annotation_of(name: &str) -> Option<String> {
    let annotation = format!("{}{name}", annotation::PREFIX);
    crate::annotations::TABLE.iter().any(|row| row.name == annotation).then_some(annotation)
}

/// The levels of the namespaces that are in the stream themselves.
fn levels<'v>(objects: impl Iterator<Item = &'v Value>) -> BTreeMap<String, Level> {
    let mut levels = BTreeMap::new();
    for object in objects {
        let items = object["items"].as_array().into_iter().flatten();
        for object in std::iter::once(object).chain(items) {
            if let ("Namespace", Some(name)) =
                (object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str())
            {
                levels.insert(name.to_owned(), Level::of_namespace(object));
            }
        }
    }
    levels
}

fn kind_of(value: &Value) -> Option<&str> {
    value["kind"].as_str().filter(|kind| !kind.is_empty())
}

fn is_resource_list(value: &Value) -> bool {
    value["kind"] == "ResourceList" && value["apiVersion"].as_str().is_some_and(|v| v.starts_with(KRM))
}

fn result(severity: &str, message: &str, item: Option<&Value>) -> Value {
    let mut result = json!({"message": message, "severity": severity});
    if let Some(item) = item {
        let (metadata, mut of) = (&item["metadata"], Map::new());
        for (field, value) in [
            ("apiVersion", &item["apiVersion"]),
            ("kind", &item["kind"]),
            ("name", &metadata["name"]),
            ("namespace", &metadata["namespace"]),
        ] {
            if value.is_string() {
                of.insert(field.to_owned(), value.clone());
            }
        }
        result["resourceRef"] = Value::Object(of);
    }
    result
}

fn with_results(mut list: Value, results: Vec<Value>) -> Value {
    if !results.is_empty() {
        let mut all = list["results"].as_array().cloned().unwrap_or_default();
        all.extend(results);
        list["results"] = Value::Array(all);
    }
    list
}
