//! What holds for every app here: the agent's own rights, the kernel and its limits.

use devsync_protocol::finding::Finding;
use devsync_protocol::path::display;
use devsync_protocol::target::CapSet;
use nix::sys::utsname::uname;

use crate::sys::ids::FsIds;
use crate::sys::openat2;
use crate::sys::proc::{self, ProcDir};

/// Fewer watches than a tree of usual size has directories.
const WATCHES: u64 = 8192;
/// More capabilities than a runtime's default set.
const MANY: usize = 20;
/// What a node gives each user, and programs that reload by themselves take one or more of.
const INSTANCES: u64 = 128;

pub(super) fn look() -> Vec<Finding> {
    let mut found = vec![agent(), openat2_here(), yama(proc::yama_scope())];
    if let Some((watches, instances)) = proc::inotify_limits() {
        found.push(inotify(watches, instances));
    }
    found
}

fn agent() -> Finding {
    let status = match ProcDir::own().and_then(|own| own.status()) {
        Ok(status) => status,
        Err(error) => {
            let fix = "mount a /proc of the pod's own process namespace in the agent's container";
            return Finding::problem("agent", error.to_string(), fix);
        }
    };
    let FsIds { uid, gid } = FsIds::current();
    let label = ProcDir::own().ok().and_then(|own| own.security_label());
    let label = label.map_or_else(|| "none".to_owned(), |label| display(&label));
    let text = format!(
        "devsync-agent {} runs as {uid}:{gid} with the effective capabilities {}; {}, security label {label}",
        env!("CARGO_PKG_VERSION"),
        capabilities(status.cap_effective),
        seccomp(status.seccomp),
    );
    Finding::ok("agent", text)
}

/// All of them are a list that nobody reads.
pub(super) fn capabilities(set: CapSet) -> String {
    match set.names() {
        names if names.len() > MANY => format!("{} of them, as root of the machine has", names.len()),
        _ => set.to_string(),
    }
}

pub(super) fn seccomp(mode: u32) -> &'static str {
    match mode {
        0 => "no seccomp filter",
        1 => "seccomp in strict mode",
        _ => "a seccomp filter",
    }
}

fn openat2_here() -> Finding {
    let release = uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let here = ProcDir::own().and_then(|own| own.open_root());
    match here.is_ok_and(openat2::is_available) {
        true => Finding::ok("kernel", format!("Linux {release}; openat2 confines every path")),
        false => Finding::warning(
            "kernel",
            format!("Linux {release} or a seccomp profile has no openat2: links on the way are refused"),
            "a kernel from 5.6 on, and a container runtime whose seccomp profile knows openat2; until then sync \
             into the directory that a link names",
        ),
    }
}

fn yama(scope: Option<u8>) -> Finding {
    match scope {
        None => Finding::ok("yama", "not in this kernel: processes of one user may be traced"),
        Some(0) => Finding::ok("yama", "kernel.yama.ptrace_scope is 0: processes of one user may be traced"),
        Some(scope @ 1..=2) => Finding::warning(
            "yama",
            format!("kernel.yama.ptrace_scope is {scope}: tracing needs CAP_SYS_PTRACE"),
            "sysctl -w kernel.yama.ptrace_scope=0 on the node, or devsync-run (devsync.dev/restart: \
             supervise), which needs no tracing",
        ),
        Some(scope) => Finding::warning(
            "yama",
            format!("kernel.yama.ptrace_scope is {scope}: nobody may trace on this node"),
            "devsync-run (the annotation devsync.dev/restart: supervise) restarts the app without tracing",
        ),
    }
}

fn inotify(watches: u64, instances: u64) -> Finding {
    let text = format!("{watches} inotify watches and {instances} instances for each user");
    match watches >= WATCHES && instances >= INSTANCES {
        true => Finding::ok("inotify", text),
        false => Finding::warning(
            "inotify",
            format!("{text}: an app that reloads by itself may find none left (the agent needs none)"),
            "sysctl -w fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512 on the node",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devsync_protocol::finding::Level;

    #[test]
    fn limits_that_are_low_are_told_with_the_sysctl() {
        assert_eq!(inotify(524_288, 128).level, Level::Ok);
        for (watches, instances) in [(100, 128), (524_288, 10)] {
            let found = inotify(watches, instances);
            assert_eq!(found.level, Level::Warning);
            assert!(found.fix.is_some_and(|fix| fix.starts_with("sysctl -w fs.inotify")));
        }
        assert_eq!(yama(None).level, Level::Ok);
        assert!(yama(Some(1)).text.contains("scope is 1"));
        assert!(yama(Some(3)).fix.is_some_and(|fix| fix.contains("devsync-run")));
    }
}
