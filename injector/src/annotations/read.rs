//! From a pod's metadata to what it asks for, with a warning for each value that is not understood.

use devsync_protocol::contract::annotation::*;
use devsync_protocol::contract::{
    ATTACHED_BY, ATTACHED_SINCE, DISABLED, ENABLED, MODIFIED_AT, RUN_MOUNT, WORKSPACE_SEED_MOUNT,
};
use serde_json::Value;

use super::values::Choice;
use super::{Probes, Restart, RunAs, TABLE, is_absolute, is_config_map, is_image};
use crate::config::Config;
use crate::resources;

/// What a pod asks for; where it is silent, what the configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// False where the pod wants nothing of devsync.
    pub inject: bool,
    /// The app's containers by name; empty where the pod does not say.
    pub containers: Vec<String>,
    pub sync_root: Option<String>,
    pub workspace: Option<String>,
    pub restart: Restart,
    pub command: Option<Vec<String>>,
    pub wait: bool,
    pub probes: Probes,
    pub agent_image: String,
    pub dev_image: Option<String>,
    /// True where the pod itself has public keys in [`KEYS`].
    pub keys: bool,
    /// The ConfigMap with public keys.
    pub keys_from: Option<String>,
    /// The agent's `resources`, merged with the defaults.
    pub resources: Value,
    /// True where the pod states resources itself.
    pub own_resources: bool,
    pub ptrace: bool,
    pub run_as: RunAs,
}

impl Asked {
    /// Reads annotations, and the label of the same name as [`INJECT`].
    pub fn read(metadata: &Value, config: &Config) -> (Self, Vec<String>) {
        let mut reader = Reader { metadata, warnings: Vec::new() };
        reader.warn_of_unknown_names();
        let restart = reader.choice(RESTART).unwrap_or_else(|| config.restart.clone());
        let own_resources = reader.resources(config);
        let asked = Self {
            inject: reader.inject(),
            containers: reader.containers(),
            sync_root: reader.path(SYNC_ROOT),
            workspace: reader.workspace(),
            restart,
            command: reader.command(),
            wait: reader.choice(WAIT).unwrap_or(false),
            probes: reader.choice(PROBES).unwrap_or(config.probes),
            agent_image: reader.image(AGENT_IMAGE).unwrap_or_else(|| config.agent_image.clone()),
            dev_image: reader.image(DEV_IMAGE),
            keys: reader.keys(),
            keys_from: reader.keys_from().or_else(|| config.keys_from.clone()),
            own_resources: own_resources.is_some(),
            resources: own_resources.unwrap_or_else(|| config.resources.clone()),
            ptrace: reader.choice(PTRACE).unwrap_or(false),
            run_as: reader.choice(RUN_AS).unwrap_or(config.run_as),
        };
        (asked, reader.warnings)
    }

    /// Whether the app is to run under devsync-run; it alone can wait for the first sync.
    pub fn is_supervised(&self) -> bool {
        self.restart == Restart::Supervise || self.wait
    }
}

struct Reader<'a> {
    metadata: &'a Value,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    /// An annotation's value; one that is no string is none that the API takes, and said.
    fn text(&mut self, name: &str) -> Option<&'a str> {
        let value = self.metadata["annotations"].get(name)?;
        if value.as_str().is_none() {
            self.warn(name, &shown(value), "no text");
        }
        value.as_str()
    }

    fn warn(&mut self, name: &str, value: &str, why: &str) {
        self.warnings.push(format!("annotation {name}: {value} is {why}; it counts as not said"));
    }

    fn choice<C: Choice>(&mut self, name: &str) -> Option<C> {
        let text = self.text(name)?;
        let value = C::parse(text);
        if value.is_none() {
            self.warn(name, &quoted(text), &format!("none of {}", C::ALLOWED));
        }
        value
    }

    /// Whoever wrote a value that is neither wanted something else than the usual: it counts as `disabled`.
    fn inject(&mut self) -> bool {
        let metadata = self.metadata;
        let said = ["labels", "annotations"].into_iter().filter_map(|place| metadata[place].get(INJECT));
        let mut inject = true;
        for value in said {
            if value != ENABLED {
                inject = false;
            }
            if value != ENABLED && value != DISABLED {
                let value = shown(value);
                self.warnings.push(format!(
                    "{INJECT}: {value} is none of {ENABLED}, {DISABLED}; it counts as {DISABLED}"
                ));
            }
        }
        inject
    }

    fn containers(&mut self) -> Vec<String> {
        let names = self.text(CONTAINER).into_iter().flat_map(|text| text.split(','));
        let names = names.map(str::trim).filter(|name| !name.is_empty());
        let mut containers: Vec<String> = Vec::new();
        for name in names {
            if !containers.iter().any(|known| known == name) {
                containers.push(name.to_owned());
            }
        }
        containers
    }

    fn path(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if text == "/" && name == SYNC_ROOT {
            return Some(text.to_owned());
        }
        if !is_absolute(text) {
            self.warn(name, &quoted(text), "no absolute path in its shortest form, as /app");
            return None;
        }
        Some(text.to_owned())
    }

    fn workspace(&mut self) -> Option<String> {
        let path = self.path(WORKSPACE)?;
        let taken = ["/proc", "/sys", "/dev", RUN_MOUNT, WORKSPACE_SEED_MOUNT];
        if taken.iter().any(|taken| is_within(&path, taken)) {
            self.warn(WORKSPACE, &quoted(&path), "no directory that a volume may replace");
            return None;
        }
        Some(path)
    }

    fn command(&mut self) -> Option<Vec<String>> {
        let text = self.text(COMMAND)?;
        let words = serde_json::from_str::<Vec<String>>(text).ok();
        let words = words.filter(|words| words.first().is_some_and(|program| !program.is_empty()));
        if words.is_none() {
            self.warn(
                COMMAND,
                &quoted(text),
                r#"no JSON array of a program and its arguments, as ["/app/server"]"#,
            );
        }
        words
    }

    fn image(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if !is_image(text) {
            self.warn(name, &quoted(text), "no image's name");
            return None;
        }
        Some(text.to_owned())
    }

    fn keys(&mut self) -> bool {
        let Some(text) = self.text(KEYS) else { return false };
        if text.contains("PRIVATE KEY") {
            self.warnings.push(format!(
                "annotation {KEYS}: that is a private key, and now others know it: make a new pair (ssh-keygen -t ed25519)"
            ));
            return false;
        }
        let has_key = text.lines().any(|line| {
            !line.trim_start().starts_with('#')
                && line
                    .split_whitespace()
                    .any(|w| ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| w.starts_with(kind)))
        });
        if !has_key {
            self.warn(KEYS, &quoted(text), "no line of authorized_keys, as ssh-ed25519 AAAA… name");
        }
        has_key
    }

    fn keys_from(&mut self) -> Option<String> {
        let text = self.text(KEYS_FROM)?;
        if !is_config_map(text) {
            self.warn(KEYS_FROM, &quoted(text), "no ConfigMap's name");
            return None;
        }
        Some(text.to_owned())
    }

    fn resources(&mut self, config: &Config) -> Option<Value> {
        let text = self.text(RESOURCES)?;
        let stated = serde_json::from_str::<Value>(text).map_err(|error| format!("no JSON ({error})"));
        match stated.and_then(|stated| resources::merged(&config.resources, &stated)) {
            Ok(resources) => Some(resources),
            Err(why) => {
                self.warn(RESOURCES, &quoted(text), &why);
                None
            }
        }
    }

    fn warn_of_unknown_names(&mut self) {
        let others = [ORIGINAL, INJECTED, ATTACHED_BY, ATTACHED_SINCE, MODIFIED_AT, "devsync.dev/copy-of"];
        let known = |name: &str| TABLE.iter().any(|row| row.name == name) || others.contains(&name);
        let names =
            self.metadata["annotations"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        for name in names.filter(|name| name.starts_with(PREFIX) && !known(name)) {
            let short: Vec<_> = TABLE.iter().map(|row| &row.name[PREFIX.len()..]).collect();
            self.warnings.push(format!(
                "annotation {} is unknown; known are {}",
                clipped(name),
                short.join(", ")
            ));
        }
    }
}

/// True for `dir` and for what lies below it.
pub(crate) fn is_within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || dir == "/")
}

fn quoted(text: &str) -> String {
    format!("{:?}", clipped(text))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| clipped(&value.to_string()), quoted)
}

/// A warning travels in an HTTP header.
fn clipped(text: &str) -> String {
    const LONGEST: usize = 48;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(annotations: Value) -> (Asked, Vec<String>) {
        Asked::read(&json!({"annotations": annotations}), &Config::default())
    }

    #[test]
    fn silence_asks_for_the_defaults() {
        let (asked, warnings) = Asked::read(&Value::Null, &Config::default());
        assert!(asked.inject && !asked.is_supervised() && warnings.is_empty());
        assert_eq!((asked.restart, asked.probes, asked.run_as), (Restart::Auto, Probes::Relax, RunAs::Auto));
    }

    #[test]
    fn every_annotation_is_read() {
        let (asked, warnings) = read(json!({
            CONTAINER: "web, worker,web", SYNC_ROOT: "/", WORKSPACE: "/app", RESTART: "signal:HUP",
            COMMAND: r#"["/app", "-v"]"#, WAIT: "true", PROBES: "strip", AGENT_IMAGE: "a:1", DEV_IMAGE: "d:1",
            KEYS: "ssh-ed25519 AAAA me\n", KEYS_FROM: "team", RESOURCES: r#"{"limits":{"memory":"1Gi"}}"#,
            PTRACE: "true", RUN_AS: "app",
        }));
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(asked.containers, ["web", "worker"]);
        assert_eq!((asked.sync_root.as_deref(), asked.workspace.as_deref()), (Some("/"), Some("/app")));
        assert_eq!(asked.command, Some(vec!["/app".to_owned(), "-v".to_owned()]));
        assert!(asked.is_supervised() && asked.keys && asked.ptrace && asked.own_resources);
        assert_eq!(asked.resources["limits"]["memory"], "1Gi");
        assert_eq!((asked.agent_image.as_str(), asked.dev_image.as_deref()), ("a:1", Some("d:1")));
    }

    #[test]
    fn a_wrong_value_is_named_beside_the_right_ones() {
        let (asked, warnings) = read(json!({PROBES: "relaxed", WAIT: "yes", RUN_AS: 0}));
        assert_eq!(asked.probes, Probes::Relax);
        assert_eq!(
            warnings,
            [
                "annotation devsync.dev/wait: \"yes\" is none of true, false; it counts as not said",
                "annotation devsync.dev/probes: \"relaxed\" is none of keep, relax, strip; it counts as not said",
                "annotation devsync.dev/run-as: 0 is no text; it counts as not said",
            ]
        );
        let long = "x".repeat(400);
        let (_, warnings) =
            read(json!({SYNC_ROOT: "app", WORKSPACE: "/proc/1", COMMAND: "run", AGENT_IMAGE: "A B",
            KEYS: "AAAA", KEYS_FROM: "My Keys", RESOURCES: "{", "devsync.dev/restarts": "x", PTRACE: long}));
        assert_eq!(warnings.len(), 9, "{warnings:#?}");
        assert!(warnings.iter().all(|warning| warning.len() <= 256), "{warnings:#?}");
    }

    #[test]
    fn a_private_key_is_said_and_not_used() {
        let (asked, warnings) = read(json!({KEYS: "-----BEGIN OPENSSH PRIVATE KEY-----"}));
        assert!(!asked.keys && warnings[0].contains("a private key"));
    }

    #[test]
    fn inject_is_off_by_label_or_annotation_or_misspelt() {
        let inject = |metadata: Value| Asked::read(&metadata, &Config::default()).0.inject;
        assert!(inject(json!({"labels": {INJECT: "enabled"}})));
        assert!(!inject(json!({"labels": {INJECT: "disabled"}})));
        assert!(!inject(json!({"labels": {INJECT: "enabled"}, "annotations": {INJECT: "disabled"}})));
        let (asked, warnings) = read(json!({INJECT: "false"}));
        assert!(!asked.inject);
        assert_eq!(
            warnings,
            ["devsync.dev/inject: \"false\" is none of enabled, disabled; it counts as disabled"]
        );
    }
}
