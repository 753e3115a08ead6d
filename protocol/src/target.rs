//! What the agent tells about the app that it found: who it is, and what is permitted and why not.
//! Data only; the agent's `target::report` fills it in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The app that the agent found, and what the agent may do to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// The app's process id in the agent's PID namespace.
    pub pid: u32,
    /// The `devsync-run` that the app was started under.
    pub supervisor: Option<u32>,
    /// The executable's path in the app's root, as bytes.
    pub exe: Vec<u8>,
    pub argv: Vec<Vec<u8>>,
    /// The working directory in the app's root, as bytes.
    pub cwd: Vec<u8>,
    /// Effective ids.
    pub uid: u32,
    pub gid: u32,
    /// The app's permitted capabilities.
    pub capabilities: CapSet,
    pub no_new_privs: bool,
    /// A seccomp filter is attached to the app.
    pub seccomp: bool,
    /// The container's id from the app's cgroup.
    pub container: Option<String>,
    /// The kernel's architecture name, as `uname -m` says it.
    pub machine: String,
    pub agent: AgentIds,
    pub access: AccessClass,
    /// None where the root cannot be opened.
    pub confinement: Option<Confinement>,
    /// May the agent open the app's root?
    pub root: Verdict,
    /// May the agent write in the directories that matter: the cwd, the executable's directory.
    pub write: Vec<DirectoryVerdict>,
    /// May the agent trace the app (restart in place)? A prediction; only trying it is proof.
    pub ptrace: Verdict,
}

/// With which ids and rights the agent itself runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentIds {
    pub uid: u32,
    pub gid: u32,
    /// The agent's effective capabilities.
    pub capabilities: CapSet,
}

/// What opens the app's root for the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessClass {
    /// The agent has the app's uid and gid.
    SameIds,
    /// The agent is root and takes the app's ids, thread by thread.
    MatchedIds,
    /// The agent has `CAP_SYS_PTRACE`.
    Ptrace,
    /// Nothing does.
    Refused,
}

/// How paths below the app's root are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confinement {
    /// By the kernel: symlinks inside the root are followed, none leads out.
    Openat2,
    /// Component by component; a symlink on the way is refused.
    Walk,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Permitted,
    Refused(Refusal),
}

impl Verdict {
    pub fn is_permitted(&self) -> bool {
        matches!(self, Self::Permitted)
    }
}

/// Why something is not permitted, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub cause: String,
    pub hint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryVerdict {
    pub directory: Vec<u8>,
    pub verdict: Verdict,
}

/// A set of capabilities, as in `/proc/PID/status`: bit N is capability N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapSet(pub u64);

impl CapSet {
    pub const CHOWN: u8 = 0;
    pub const DAC_OVERRIDE: u8 = 1;
    pub const SETGID: u8 = 6;
    pub const SETUID: u8 = 7;
    pub const SYS_PTRACE: u8 = 19;

    pub fn has(self, capability: u8) -> bool {
        capability < 64 && self.0 >> capability & 1 == 1
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of `other` that are not in this set.
    pub fn missing(self, other: Self) -> Self {
        Self(other.0 & !self.0)
    }

    /// Names without the `CAP_` prefix; a capability newer than this table is named by its number.
    pub fn names(self) -> Vec<String> {
        (0..64u8)
            .filter(|n| self.has(*n))
            .map(|n| CAPABILITIES.get(usize::from(n)).map_or_else(|| n.to_string(), ToString::to_string))
            .collect()
    }
}

impl fmt::Display for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("none") } else { f.write_str(&self.names().join(", ")) }
    }
}

/// By number, from the kernel's `include/uapi/linux/capability.h`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_default_set_is_named() {
        let default = CapSet(0xa804_25fb);
        assert_eq!(
            default.to_string(),
            "CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, \
             NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP"
        );
        assert_eq!(CapSet(1 << 50).to_string(), "50");
        assert_eq!(CapSet::default().to_string(), "none");
    }

    #[test]
    fn missing_is_what_the_other_has_more() {
        assert_eq!(CapSet(0b0101).missing(CapSet(0b0110)), CapSet(0b0010));
    }
}
