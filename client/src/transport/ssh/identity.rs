//! The key that proves the person: an OpenSSH private key file, opened by its passphrase or used through ssh-agent.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{PrivateKey, PublicKey};
use thiserror::Error;

/// A key file is some kilobytes.
const LONGEST: u64 = 64 * 1024;

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("cannot read the identity file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the identity file {} has mode {mode:04o}: others can read it", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{} is not an OpenSSH private key", path.display())]
    NotAKey { path: PathBuf },
    #[error("{} is a {algorithm} key, which agents do not accept", path.display())]
    Algorithm { path: PathBuf, algorithm: String },
    #[error("{} is encrypted, and no ssh-agent holds its key", path.display())]
    Encrypted { path: PathBuf },
    #[error("the passphrase does not open {}", path.display())]
    Passphrase { path: PathBuf },
}

impl IdentityError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Read { .. } => "--identity FILE names another one".to_owned(),
            Self::Mode { path, .. } => format!("chmod 600 {}", path.display()),
            Self::NotAKey { path } => {
                format!(
                    "give the private key, not its .pub; ssh-keygen -p -f {} converts an old format",
                    path.display()
                )
            }
            Self::Algorithm { .. } => "ssh-keygen -t ed25519 makes one that they do".to_owned(),
            Self::Encrypted { path } | Self::Passphrase { path } => {
                let path = path.display();
                format!("ssh-add {path}, or ssh-keygen -p -f {path} to take the passphrase off")
            }
        }
    }
}

/// How to sign.
#[derive(Clone)]
pub(crate) enum Identity {
    File(PathBuf, Arc<PrivateKey>),
    /// The file's key is in ssh-agent.
    Agent(PathBuf, PublicKey),
    /// A key that lives as long as the session.
    Session(Arc<PrivateKey>),
}

/// Reads the identity file; an encrypted one needs ssh-agent, or a terminal to ask on.
pub(super) async fn load(path: &Path) -> Result<Identity, IdentityError> {
    let key = read(path)?;
    if key.algorithm().is_rsa() || matches!(key.algorithm(), russh::keys::Algorithm::Dsa) {
        return Err(IdentityError::Algorithm { path: path.into(), algorithm: key.algorithm().to_string() });
    }
    if !key.is_encrypted() {
        return Ok(Identity::File(path.to_owned(), Arc::new(key)));
    }
    if agent::holds(key.public_key()).await {
        return Ok(Identity::Agent(path.to_owned(), key.public_key().clone()));
    }
    let path = path.to_owned();
    let asked = tokio::task::spawn_blocking(move || ask(&path, &key)).await;
    asked.unwrap_or_else(|joined| std::panic::resume_unwind(joined.into_panic()))
}

fn read(path: &Path) -> Result<PrivateKey, IdentityError> {
    let error = |source| IdentityError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = file.metadata().map_err(error)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Mode { path: path.to_owned(), mode });
        }
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(error)?;
    PrivateKey::from_openssh(&text).map_err(|_| IdentityError::NotAKey { path: path.to_owned() })
}

/// Asks for the passphrase, three times at most.
fn ask(path: &Path, key: &PrivateKey) -> Result<Identity, IdentityError> {
    let terminal = console::Term::stderr();
    if !terminal.is_term() || !io::IsTerminal::is_terminal(&io::stdin()) {
        return Err(IdentityError::Encrypted { path: path.to_owned() });
    }
    let error = |source| IdentityError::Read { path: path.to_owned(), source };
    for _ in 0..3 {
        terminal.write_str(&format!("Passphrase for {}: ", path.display())).map_err(error)?;
        let passphrase = terminal.read_secure_line().map_err(error)?;
        if let Ok(key) = key.decrypt(passphrase) {
            return Ok(Identity::File(path.to_owned(), Arc::new(key)));
        }
    }
    Err(IdentityError::Passphrase { path: path.to_owned() })
}

#[cfg(unix)]
pub(super) mod agent {
    //! ssh-agent, through SSH_AUTH_SOCK.

    use russh::keys::PublicKey;
    use russh::keys::agent::AgentIdentity;
    use russh::keys::agent::client::AgentClient;
    use tokio::net::UnixStream;

    pub(crate) async fn connect() -> Option<AgentClient<UnixStream>> {
        AgentClient::connect_env().await.ok()
    }

    /// Whether there is an agent that holds this key.
    pub(super) async fn holds(key: &PublicKey) -> bool {
        let Some(mut agent) = connect().await else { return false };
        let identities = agent.request_identities().await.unwrap_or_default();
        identities.iter().any(|identity| match identity {
            AgentIdentity::PublicKey { key: held, .. } => held.key_data() == key.key_data(),
            AgentIdentity::Certificate { .. } => false,
        })
    }
}

#[cfg(not(unix))]
pub(super) mod agent {
    //! No ssh-agent here: its named pipe is not spoken to.

    use russh::keys::PublicKey;

    pub(super) async fn holds(_: &PublicKey) -> bool {
        false
    }
}
