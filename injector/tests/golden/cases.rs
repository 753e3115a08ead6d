//! The golden pairs: what is read from the head of each, and what the library makes of it.
//!
//! NAME.in.yaml begins with comments: `# level: restricted` (the namespace's, else privileged), `# native` (a server with
//! sidecars), `# config: {…}` (the installation's). NAME.out.yaml begins with what the library said.

use std::path::{Path, PathBuf};

use devsync_injector::security::Level;
use devsync_injector::{Config, Outcome, Place, eject, inject};
use serde_json::Value;

pub struct Case {
    pub name: String,
    pub input: Value,
    pub config: Config,
    pub place: Place,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../injector/tests/golden")
}

/// All pairs, by name.
pub fn all() -> Vec<Case> {
    let files = std::fs::read_dir(directory()).expect("the directory of golden pairs");
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".in.yaml").map(str::to_owned)).collect();
    names.sort();
    names.into_iter().map(case).collect()
}

fn case(name: String) -> Case {
    let text = std::fs::read_to_string(directory().join(format!("{name}.in.yaml"))).expect("readable");
    let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("# ")).collect();
    let said = |key: &str| head.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    let level = said("level").map_or(Level::Privileged, |level| Level::named(level).expect("a level"));
    let place = Place { level, native_sidecars: head.contains(&"native") };
    let config = Config::from_yaml(said("config").unwrap_or_default()).expect("a configuration");
    let input = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    Case { name, input, config, place }
}

impl Case {
    pub fn outcome(&self) -> Outcome {
        inject(&self.input, &self.config, &self.place)
    }

    /// The object as it is then.
    pub fn output(&self) -> Value {
        self.outcome().object.unwrap_or_else(|| self.input.clone())
    }

    /// What the golden file has: the words, and the object where it changed.
    pub fn text(&self) -> String {
        let Outcome { object, did, warnings } = self.outcome();
        let mut text = String::new();
        did.iter().for_each(|did| text += &format!("# did: {did}\n"));
        warnings.iter().for_each(|warning| text += &format!("# warning: {warning}\n"));
        match object {
            Some(object) => text.push_str(&serde_saphyr::to_string(&object).expect("is YAML")),
            None => text.push_str("# unchanged\n"),
        }
        text
    }

    pub fn golden(&self) -> PathBuf {
        directory().join(format!("{}.out.yaml", self.name))
    }

    pub fn again(&self) -> Outcome {
        inject(&self.output(), &self.config, &self.place)
    }

    pub fn ejected(&self) -> Value {
        let output = self.output();
        eject(&output).object.unwrap_or(output)
    }
}

/// The pods' templates of an object: those of a list's items, too.
pub fn templates(object: &Value) -> Vec<&Value> {
    if let Some(items) = object["items"].as_array() {
        return items.iter().flat_map(templates).collect();
    }
    let paths = ["", "/spec/template", "/spec/jobTemplate/spec/template"];
    let found = paths.iter().filter_map(|path| object.pointer(path));
    found.filter(|template| template["spec"]["containers"].is_array()).collect()
}
