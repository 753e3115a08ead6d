//! Names that client, agent, injector and manifests share: containers, paths, ports, labels, annotations.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

/// The agent's container in a pod.
pub const AGENT_CONTAINER: &str = "devsync-agent";
/// The agent's image where nobody names another.
pub const AGENT_IMAGE: &str = concat!("ghcr.io/devsync/devsync-agent:", env!("CARGO_PKG_VERSION"));
/// The agent's image with tools for a shell and for debuggers.
pub const TOOLBOX_IMAGE: &str = concat!("ghcr.io/devsync/devsync-toolbox:", env!("CARGO_PKG_VERSION"));
/// Where those tools are in that image; the agent's own root, never the app's.
pub const TOOLBOX: &str = "/toolbox";
/// The agent's executable in its image.
pub const AGENT_PROGRAM: &str = "/devsync-agent";
/// Where the agent listens, unless the port is taken in the pod: `authorize` says where it does.
pub const AGENT_PORT: u16 = 2222;
/// `devsync-agent ids` prints this word, and the app's `UID:GID`.
pub const IDS: &str = "ids";
/// The emptyDir that holds the agent's state.
pub const VOLUME: &str = "devsync";
/// Where that volume is mounted in the agent's container.
pub const STATE_DIR: &str = "/run/devsync";
/// Server-side apply's name for what devsync owns.
pub const FIELD_MANAGER: &str = "devsync";
/// The SSH subsystem that carries a session.
pub const SUBSYSTEM: &str = "devsync";
/// The variable by which a client names its session before it starts the subsystem: a connection of the same key that
/// named the same one is over.
pub const SESSION_VARIABLE: &str = "DEVSYNC_SESSION";
/// A client's shell may be one *beside* the app, says this variable with the value [`BESIDE`]: the agent accepts it
/// where it cannot enter the app's root and the key was registered; a shell of that channel then runs in the agent's own
/// container. Refused, a shell is in the app's root as always.
pub const SHELL_VARIABLE: &str = "DEVSYNC_SHELL";
pub const BESIDE: &str = "beside";
/// In that shell: where the app's root is.
pub const ROOT_VARIABLE: &str = "DEVSYNC_ROOT";
/// A command is one program and its arguments, says this variable with the value [`PROGRAM`]: nothing of it is for a
/// shell to read, and one that is not there is told by [`MISSING_SIGNAL`].
pub const PROGRAM_VARIABLE: &str = "DEVSYNC_COMMAND";
pub const PROGRAM: &str = "program";
/// The exit signal of a channel whose program is not there; the reason is its message.
pub const MISSING_SIGNAL: &str = "missing@devsync";

/// The supervisor's executable, in the agent's image and in the directory that it installs itself into.
pub const RUN_PROGRAM: &str = "devsync-run";
pub const RUN_IN_IMAGE: &str = "/devsync-run";
/// Its first words: `devsync-run install DIR`, `devsync-run seed FROM TO`.
pub const RUN_INSTALL: &str = "install";
pub const RUN_SEED: &str = "seed";
/// Its options before the app: wait for the first sync; start what lies in `/` from its copy in a directory.
pub const RUN_WAIT: &str = "--wait";
/// A file that says that the first sync was waited for: it is in the volume of what was synced.
pub const RUN_WAITED: &str = "--waited";
pub const RUN_EXEC_COPY: &str = "--exec-copy";
/// The directory of [`VOLUME`] that it is installed into, and where an app's container has that directory mounted.
pub const RUN_DIR: &str = "bin";
pub const RUN_MOUNT: &str = "/.devsync";
/// Begins the abstract name of each supervisor's control socket; the pid in its own namespace follows, then perhaps `.N`.
/// An abstract name belongs to the network namespace, which the containers of a pod share.
pub const RUN_SOCKET_PREFIX: &str = "devsync-run.";
/// How many names one pid may try: each container of a pod may have a PID 1.
pub const RUN_SOCKET_TRIES: u32 = 64;
/// The emptyDir in the place of the app's files, where it is mounted while it is seeded, and the directory in it that
/// the app's container has mounted.
pub const WORKSPACE: &str = "devsync-workspace";
pub const WORKSPACE_SEED_MOUNT: &str = "/.devsync-workspace";
/// The directory of the volume, and its file, for [`RUN_WAITED`].
pub const WORKSPACE_STATE: &str = "state";
pub const WORKSPACE_WAITED: &str = "waited";
pub const WORKSPACE_FILES: &str = "files";

/// A namespace's label: pods in it are for development, and the injector gives each of them an agent.
pub const INJECT: &str = "devsync.dev/inject";
/// The label's value.
pub const ENABLED: &str = "enabled";
/// A pod's annotation while a client is attached: who, and since when.
pub const ATTACHED_BY: &str = "devsync.dev/attached-by";
pub const ATTACHED_SINCE: &str = "devsync.dev/attached-since";
/// A pod's annotation once files in it are no longer those of its image: when that happened last.
pub const MODIFIED_AT: &str = "devsync.dev/modified-at";

/// Annotations of a pod, or of a workload's pod template. What they mean is in `devsync_injector::annotations`.
pub mod annotation {
    /// What every one of them begins with.
    pub const PREFIX: &str = "devsync.dev/";
    pub const INJECT: &str = super::INJECT;
    pub const CONTAINER: &str = "devsync.dev/container";
    pub const SYNC_ROOT: &str = "devsync.dev/sync-root";
    pub const WORKSPACE: &str = "devsync.dev/workspace";
    pub const RESTART: &str = "devsync.dev/restart";
    pub const COMMAND: &str = "devsync.dev/command";
    pub const WAIT: &str = "devsync.dev/wait";
    pub const PROBES: &str = "devsync.dev/probes";
    pub const AGENT_IMAGE: &str = "devsync.dev/agent-image";
    pub const DEV_IMAGE: &str = "devsync.dev/dev-image";
    pub const KEYS: &str = "devsync.dev/keys";
    pub const KEYS_FROM: &str = "devsync.dev/keys-from";
    pub const RESOURCES: &str = "devsync.dev/resources";
    pub const PTRACE: &str = "devsync.dev/ptrace";
    pub const RUN_AS: &str = "devsync.dev/run-as";
    /// Written by the injector: what it replaced, as JSON.
    pub const ORIGINAL: &str = "devsync.dev/original";
    /// Written by the injector: the release that did it.
    pub const INJECTED: &str = "devsync.dev/injected";
}

/// The value of [`INJECT`] that keeps devsync out of a pod.
pub const DISABLED: &str = "disabled";
/// The init container that brings devsync-run.
pub const INSTALL_CONTAINER: &str = "devsync-install";
/// The init container that fills a workspace volume; with several of them a number follows.
pub const SEED_CONTAINER: &str = "devsync-seed";
/// The volume with public keys, where the agent has it, and the file in it: the key of the ConfigMap too.
pub const KEYS_VOLUME: &str = "devsync-keys";
pub const KEYS_DIR: &str = "/etc/devsync/keys";
pub const KEYS_FILE: &str = "authorized_keys";

/// The webhook's Deployment, Service, ConfigMap, Lease, roles and MutatingWebhookConfiguration.
pub const INJECTOR: &str = "devsync-injector";
/// The namespace that it is installed in, unless another is named.
pub const INJECTOR_NAMESPACE: &str = "devsync-system";
/// The webhook's image where nobody names another.
pub const INJECTOR_IMAGE: &str = concat!("ghcr.io/devsync/devsync-injector:", env!("CARGO_PKG_VERSION"));
/// The webhook's name in its configuration.
pub const INJECTOR_WEBHOOK: &str = "inject.devsync.dev";
/// The Secret with the webhook's certificates.
pub const INJECTOR_TLS: &str = "devsync-injector-tls";
/// Where the webhook listens.
pub const INJECTOR_PORT: u16 = 8443;
/// The key of the injector's ConfigMap that holds its configuration.
pub const INJECTOR_CONFIG_KEY: &str = "config.yaml";
/// The path of the webhook that mutates pods.
pub const MUTATE_PATH: &str = "/mutate";
/// An annotation of the Secret with the certificates: another value asks for new ones.
pub const ROTATE: &str = "devsync.dev/rotate";

/// What `devsync-agent authorize` prints: the way to the server that the key was registered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorized {
    /// The agent's release.
    pub release: String,
    /// Where its SSH server listens, as seen in the pod.
    pub listen: SocketAddr,
    /// The host key as OpenSSH writes it: `ssh-ed25519 AAAA…`.
    pub host_key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the agent's answer has no usable line {0:?}")]
pub struct AuthorizedError(&'static str);

impl fmt::Display for Authorized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "release {}", self.release)?;
        writeln!(f, "listen {}", self.listen)?;
        writeln!(f, "host-key {}", self.host_key)
    }
}

impl FromStr for Authorized {
    type Err = AuthorizedError;

    /// Lines of other names are passed over, so that a later agent may say more.
    fn from_str(text: &str) -> Result<Self, AuthorizedError> {
        let line = |name: &'static str| {
            let mut values = text.lines().filter_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            values.next().ok_or(AuthorizedError(name))
        };
        Ok(Self {
            release: line("release")?.to_owned(),
            listen: line("listen")?.parse().map_err(|_| AuthorizedError("listen"))?,
            host_key: line("host-key")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_answers_reads_back() {
        let answer = Authorized {
            release: "0.1.0".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], AGENT_PORT)),
            host_key: "ssh-ed25519 AAAA".to_owned(),
        };
        assert_eq!(answer.to_string().parse(), Ok(answer.clone()));
        assert_eq!(format!("{answer}more than that\n").parse(), Ok(answer));
        assert_eq!(
            "release 1\nlisten here\nhost-key k\n".parse::<Authorized>(),
            Err(AuthorizedError("listen"))
        );
        assert_eq!("".parse::<Authorized>(), Err(AuthorizedError("release")));
    }
}
