//! The annotations and labels of a pod that devsync knows: one table, and the reading of it. A value that is none of
//! those is a warning and counts as not said; it never stands in a pod's way.

mod read;
mod values;

use devsync_protocol::contract::annotation::*;
use serde_json::Value;

pub use read::Asked;
pub(crate) use read::is_within;
pub use values::{Probes, Restart, RunAs};
pub(crate) use values::{is_absolute, is_config_map, is_image};

/// One row of the table, as the guide has it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub name: &'static str,
    pub values: &'static str,
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn row(name: &'static str, values: &'static str, default: &'static str, meaning: &'static str) -> Row {
    Row { name, values, default, meaning }
}

/// What a pod may say. Each is an annotation of the pod, or of the pod template of a workload.
pub const TABLE: [Row; 15] = [
    row(
        INJECT,
        "`enabled`, `disabled`",
        "`enabled`",
        "whether devsync comes into this pod; a label works too",
    ),
    row(CONTAINER, "names, with commas", "see below", "the app's container or containers"),
    row(
        SYNC_ROOT,
        "a path",
        "the app's working directory",
        "the directory in the pod that `devsync attach` syncs to",
    ),
    row(WORKSPACE, "a path", "none", "a volume in the place of this directory, filled from the image"),
    row(
        RESTART,
        "`auto`, `reexec`, `supervise`, `none`, `signal:NAME`",
        "`auto`",
        "how a save restarts the app; `supervise` starts it under devsync-run",
    ),
    row(
        COMMAND,
        "a JSON array",
        "the spec's `command`",
        "what devsync-run starts where the spec has no `command`",
    ),
    row(WAIT, "`true`, `false`", "`false`", "the app starts with the first sync; supervises it"),
    row(PROBES, "`keep`, `relax`, `strip`", "`relax`", "what becomes of the app's probes"),
    row(AGENT_IMAGE, "an image", "the configuration's", "the agent's image"),
    row(DEV_IMAGE, "an image", "none", "an image for the app's container, in place of its own"),
    row(KEYS, "lines of authorized_keys", "none", "public keys that may log in to the agent"),
    row(
        KEYS_FROM,
        "a ConfigMap",
        "the configuration's",
        "the same, from the key `authorized_keys` of a ConfigMap",
    ),
    row(RESOURCES, "JSON", "the configuration's", "`requests` and `limits` of the agent's container"),
    row(
        PTRACE,
        "`true`, `false`",
        "`false`",
        "gives the agent SYS_PTRACE, where the Pod Security level permits it",
    ),
    row(RUN_AS, "`auto`, `app`, `root`", "`auto`", "whom the agent runs as"),
];

/// What the injector writes itself.
pub const WRITTEN: [Row; 2] = [
    row(INJECTED, "a release", "", "devsync is in this pod, and which release put it there"),
    row(ORIGINAL, "JSON", "", "what was replaced, for `devsync inject --eject`"),
];

/// The annotations that are devsync's and were written by a person, in the order of their names.
pub(crate) fn asked_of(metadata: &Value) -> Vec<(&str, &Value)> {
    let annotations = metadata["annotations"].as_object().into_iter().flatten();
    let ours = annotations.filter(|(key, _)| TABLE.iter().any(|row| row.name == key.as_str()));
    let mut ours: Vec<_> = ours.map(|(key, value)| (key.as_str(), value)).collect();
    ours.sort_unstable_by_key(|(key, _)| *key);
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guide's rows of both tables.
    fn guide() -> Vec<String> {
        let text = include_str!("../../docs/guides/annotations.md");
        text.lines().filter(|line| line.starts_with("| `devsync.dev/")).map(str::to_owned).collect()
    }

    #[test]
    fn the_guide_has_the_same_table() {
        let asked = TABLE
            .iter()
            .map(|row| format!("| `{}` | {} | {} | {} |", row.name, row.values, row.default, row.meaning));
        let written =
            WRITTEN.iter().map(|row| format!("| `{}` | {} | {} |", row.name, row.values, row.meaning));
        assert_eq!(guide(), asked.chain(written).collect::<Vec<_>>());
    }
}
