//! The laptop: can files be watched, is there a way to clusters, and to processes of this machine?

use std::path::Path;

use devsync_protocol::finding::Finding;
use notify::{RecursiveMode, Watcher};

use crate::cli::ClusterArgs;
use crate::cluster;
use crate::error::CommandError;
use crate::transport::stdio;

/// Fewer watches than a tree of usual size has directories.
#[cfg(target_os = "linux")]
const WATCHES: u64 = 8192;

/// A failure as a finding.
pub fn failure(topic: &str, error: &CommandError) -> Finding {
    Finding::problem(topic, error.line(), error.get_hint().unwrap_or_default())
}

/// Watches a directory for a moment.
pub fn watch(project: &Path) -> Vec<Finding> {
    let place = crate::dirs::near(project);
    let tried = notify::recommended_watcher(|_: notify::Result<notify::Event>| {})
        .and_then(|mut watcher| watcher.watch(project, RecursiveMode::NonRecursive));
    let mut found = vec![match tried {
        Ok(()) => Finding::ok("watcher", format!("{place} can be watched: tried")),
        Err(error) => Finding::problem(
            "watcher",
            format!("{place} cannot be watched: {error}; what changes would be looked for again and again"),
            "end other watchers (editors, bundlers), or raise the limit: sysctl -w fs.inotify.max_user_watches=524288 \
             fs.inotify.max_user_instances=512",
        ),
    }];
    found.extend(limits());
    found
}

#[cfg(target_os = "linux")]
fn limits() -> Option<Finding> {
    let read = |name| {
        std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse::<u64>().ok()
    };
    let (watches, instances) = (read("max_user_watches")?, read("max_user_instances")?);
    let text =
        format!("{watches} inotify watches and {instances} instances; a watch is needed for each directory");
    Some(match watches >= WATCHES {
        true => Finding::ok("inotify", text),
        false => Finding::warning("inotify", text, "sysctl -w fs.inotify.max_user_watches=524288"),
    })
}

#[cfg(not(target_os = "linux"))]
fn limits() -> Option<Finding> {
    None
}

/// The context that is meant. `needed`: the target is in a cluster.
pub fn kubeconfig(args: &ClusterArgs, needed: bool) -> Finding {
    match cluster::place(args) {
        Ok(place) if place.context.is_empty() => Finding::ok(
            "kubeconfig",
            format!("none: the service account of this pod, namespace {}", place.namespace),
        ),
        Ok(place) => {
            Finding::ok("kubeconfig", format!("context {}, namespace {}", place.context, place.namespace))
        }
        Err(error) if needed => failure("kubeconfig", &error),
        Err(error) => Finding::warning(
            "kubeconfig",
            format!("{}; processes of this machine (pid/N) need none", error.line()),
            error.get_hint().unwrap_or_default(),
        ),
    }
}

/// For a process of this machine.
pub fn agent() -> Finding {
    match stdio::find_agent() {
        Ok(agent) => Finding::ok("agent", format!("{} is there for pid/N", agent.display())),
        Err(error) => failure("agent", &crate::connect::tell_stdio(error)),
    }
}
