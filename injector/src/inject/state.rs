//! What a template has of devsync already, and whether that is to stay.

use devsync_protocol::contract::annotation::{INJECTED, ORIGINAL};
use devsync_protocol::contract::{AGENT_CONTAINER, VOLUME};
use serde_json::Value;

use crate::agent::agent_in;
use crate::annotations::{Asked, asked_of};
use crate::config::Config;
use crate::original::Original;
use crate::outcome::Place;
use crate::security::Level;

/// The release that injects.
pub(super) const RELEASE: &str = env!("CARGO_PKG_VERSION");

pub(super) enum State {
    /// Nothing of devsync.
    Fresh,
    /// As this release would make it, or as a later one made it; or attach's.
    Ours,
    /// An injection that is to be made anew, and why.
    Outdated(String),
    /// Something that has devsync's names and is not devsync's.
    Foreign(String),
}

/// Annotations decide: whoever changes an injected pod afterwards (another webhook, the API server's defaults) is not
/// undone when it passes here again.
pub(super) fn of(template: &Value, place: &Place, config: &Config) -> State {
    let annotations = &template["metadata"]["annotations"];
    let agent = agent_in(&template["spec"]);
    match (annotations[INJECTED].as_str(), agent) {
        (None, None) => State::Fresh,
        (None, Some(agent)) if is_attached(agent) => State::Ours,
        (None, Some(_)) => State::Foreign(format!(
            "not injected: it has a container {AGENT_CONTAINER} that is not devsync's; hint: rename it"
        )),
        (Some(_), None) => State::Foreign(format!(
            "not injected: its annotation {INJECTED} says that it is, and there is no container {AGENT_CONTAINER}; \
             hint: devsync inject --eject, and inject again"
        )),
        (Some(release), Some(_)) => match outdated(template, release, place, config) {
            Some(why) => State::Outdated(why),
            None => State::Ours,
        },
    }
}

/// An agent that `devsync attach` added, which the pod's annotations do not tell.
fn is_attached(agent: &Value) -> bool {
    let mounts = agent["volumeMounts"].as_array().into_iter().flatten();
    agent["args"][0] == "serve" && mounts.into_iter().any(|mount| mount["name"] == VOLUME)
}

fn outdated(template: &Value, release: &str, place: &Place, config: &Config) -> Option<String> {
    let metadata = &template["metadata"];
    let record = metadata["annotations"][ORIGINAL].as_str()?;
    // Without its record it cannot be taken out in full, and stays.
    let original = Original::read(record)?;
    if !Asked::read(metadata, config).0.inject {
        return Some("devsync is not wanted any more".to_owned());
    }
    if is_older(release, RELEASE) {
        return Some(format!("it was devsync {release}"));
    }
    if original.asked != asked(metadata) {
        return Some("its annotations changed".to_owned());
    }
    let level = Level::named(&original.level)?;
    (place.level > level).then(|| format!("the namespace enforces {}", place.level.name()))
}

/// True for an earlier release; what cannot be compared is not.
fn is_older(release: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u32>> {
        text.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok()).collect()
    };
    numbers(release).zip(numbers(than)).is_some_and(|(a, b)| a < b)
}

/// Tells one set of annotations from another: FNV-1a of names and values. It guards against nothing.
pub(super) fn asked(metadata: &Value) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (name, value) in asked_of(metadata) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for byte in name.bytes().chain([0]).chain(value.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_numbers() {
        assert!(is_older("0.1.0", "0.2.0") && is_older("0.9.0", "0.10.0") && is_older("0.1.0-dev", "1.0.0"));
        for (release, than) in [("0.2.0", "0.1.0"), ("0.1.0", "0.1.0"), ("", "0.1.0"), ("x.y", "1.0.0")] {
            assert!(!is_older(release, than), "{release} {than}");
        }
    }
}
