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
/// The emptyDir that holds the agent's state.
pub const VOLUME: &str = "devsync";
/// Where that volume is mounted in the agent's container.
pub const STATE_DIR: &str = "/run/devsync";
/// Server-side apply's name for what devsync owns.
pub const FIELD_MANAGER: &str = "devsync";
/// The SSH subsystem that carries a session.
pub const SUBSYSTEM: &str = "devsync";

/// A namespace's label: pods in it are for development, and the injector gives each of them an agent.
pub const INJECT: &str = "devsync.dev/inject";
/// The label's value.
pub const ENABLED: &str = "enabled";
/// A pod's annotation while a client is attached: who, and since when.
pub const ATTACHED_BY: &str = "devsync.dev/attached-by";
pub const ATTACHED_SINCE: &str = "devsync.dev/attached-since";
/// A pod's annotation once files in it are no longer those of its image: when that happened last.
pub const MODIFIED_AT: &str = "devsync.dev/modified-at";

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
