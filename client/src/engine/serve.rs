//! What others ask of a running attach through its control socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use devsync_protocol::digest::Digest;
use devsync_protocol::message::{MAX_ROOTS, RootId};
use devsync_protocol::path::RelPath;
use devsync_protocol::restart::RestartMode;
use devsync_protocol::tree::{Entry, Node, Tree};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Engine;
use super::halt::Halt;
use crate::error::CommandError;
use crate::pull;
use crate::verify;

/// The number of the sync root by which all pulls are made.
const PULLS: RootId = MAX_ROOTS as RootId - 1;

/// A question, and where its answer goes.
pub enum Command {
    Restart { mode: Option<RestartMode>, grace: Option<Duration>, then: Reply<String> },
    Verify { then: Reply<Vec<Difference>> },
    Pull { path: String, into: PathBuf, overwrite: bool, then: Reply<pull::Pulled> },
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// One path that the pod has otherwise than the laptop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub path: String,
    pub what: String,
}

impl Command {
    /// Answers with an error.
    pub fn refuse(self, error: CommandError) {
        match self {
            Command::Restart { then, .. } => drop(then.send(Err(error))),
            Command::Verify { then } => drop(then.send(Err(error))),
            Command::Pull { then, .. } => drop(then.send(Err(error))),
        }
    }
}

impl Engine {
    pub(super) async fn on_command(&mut self, command: Option<Command>) -> Result<(), Halt> {
        match command {
            None => std::future::pending().await,
            // Clear at once, not when there is a session again.
            Some(command) if !self.link.is_up() => command.refuse(self.away()),
            Some(Command::Restart { mode, grace, then }) => {
                self.restarts.by_hand(&self.handle, mode, grace, then).await?;
            }
            Some(Command::Verify { then }) => self.verify(then),
            Some(Command::Pull { path, into, overwrite, then }) => {
                let pulling = self.pulling.clone();
                let handle = self.handle.clone();
                let wish = pull::Wish { root: PULLS, path, into, overwrite };
                // Ends with its answer, or with the session.
                tokio::spawn(async move {
                    let _one = pulling.lock().await;
                    let _ = then.send(pull::pull(&handle, wish).await);
                });
            }
        }
        Ok(())
    }

    fn verify(&self, then: Reply<Vec<Difference>>) {
        let sides = self.roots.iter().map(|root| verify::Side {
            root: root.id,
            place: root.place.clone(),
            tree: root.tree_for_pod(),
        });
        let sides: Vec<_> = sides.collect();
        let (handle, exe) = (self.handle.clone(), self.job.exe.clone());
        tokio::spawn(async move {
            let _ = then.send(verify::verify(&handle, sides, exe.as_deref()).await);
        });
    }
}

/// The differences between what is here and what the pod has.
pub fn compare_digests(here: &Tree, there: &[Entry], shown: impl Fn(&RelPath) -> String) -> Vec<Difference> {
    let there: BTreeMap<&RelPath, &Node> = there.iter().map(|e| (&e.path, &e.node)).collect();
    let mut differences = Vec::new();
    for (path, node) in &here.0 {
        let what = match there.get(path) {
            None => "is missing in the pod".to_owned(),
            Some(other) if *other == node => continue,
            Some(other) => difference(node, other),
        };
        differences.push(Difference { path: shown(path), what });
    }
    for path in there.keys().filter(|path| !here.0.contains_key(**path)) {
        differences.push(Difference { path: shown(path), what: "is in the pod only".to_owned() });
    }
    differences
}

fn difference(here: &Node, there: &Node) -> String {
    let short = |digest: &Digest| digest.to_string()[..12].to_owned();
    match (here, there) {
        (Node::File { digest: a, mode, .. }, Node::File { digest: b, mode: other, .. }) if a == b => {
            format!("has mode {other:o} in the pod, {mode:o} here")
        }
        (Node::File { digest: a, .. }, Node::File { digest: b, .. }) => {
            format!("has other contents: {} in the pod, {} here", short(b), short(a))
        }
        (Node::Symlink { .. }, Node::Symlink { .. }) => "leads elsewhere in the pod".to_owned(),
        (Node::Dir { mode }, Node::Dir { mode: other }) => {
            format!("has mode {other:o} in the pod, {mode:o} here")
        }
        _ => "is of another kind in the pod".to_owned(),
    }
}

/// When a session began, for people: local clocks differ, so in UTC.
pub fn clock() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named() {
        let path = |name: &str| RelPath::new(name).expect("valid");
        let file = |text: &str, mode| Node::File { mode, size: 1, digest: Digest::of(text.as_bytes()) };
        let entry = |name: &str, node| Entry { path: path(name), node };
        let here = Tree(BTreeMap::from([
            (path("a"), file("1", 0o644)),
            (path("b"), file("1", 0o644)),
            (path("c"), file("1", 0o755)),
            (path("d"), file("1", 0o644)),
        ]));
        let there = [
            entry("a", file("1", 0o644)),
            entry("b", file("2", 0o644)),
            entry("c", file("1", 0o644)),
            entry("e", file("1", 0o644)),
        ];
        let found = compare_digests(&here, &there, ToString::to_string);
        let names: Vec<_> = found.iter().map(|d| d.path.as_str()).collect();
        assert_eq!(names, ["b", "c", "d", "e"]);
        assert_eq!(found[1].what, "has mode 644 in the pod, 755 here");
        assert_eq!(found[2].what, "is missing in the pod");
        assert!(
            compare_digests(
                &here,
                &here.0.iter().map(|(p, n)| Entry { path: p.clone(), node: n.clone() }).collect::<Vec<_>>(),
                ToString::to_string
            )
            .is_empty()
        );
    }
}
