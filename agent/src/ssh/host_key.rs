//! The server's ed25519 host key: in memory, or kept in the state directory, readable by its owner alone.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, ssh_key};
use thiserror::Error;

/// Name of the file in the state directory.
const FILE: &str = "ssh_host_ed25519_key";
/// A key file is some hundred bytes.
const LONGEST: u64 = 16 * 1024;

#[derive(Debug, Error)]
pub enum HostKeyError {
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("host key {} has mode {mode:04o}: others can read it (hint: chmod 600 {})", path.display(), path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error(
        "host key {} belongs to uid {owner}, the agent runs as uid {uid} (hint: chown {uid} {})",
        path.display(),
        path.display()
    )]
    Owner { path: PathBuf, owner: u32, uid: u32 },
    #[error("host key {} is not an unencrypted ed25519 OpenSSH key (hint: remove it, and a new one is made)", path.display())]
    Unusable { path: PathBuf },
    #[error("a host key cannot be made")]
    Make(#[from] ssh_key::Error),
}

/// The key that proves the server to its clients.
#[derive(Debug, Clone)]
pub struct HostKey(PrivateKey);

impl HostKey {
    /// Makes a key that lives as long as the process.
    pub fn ephemeral() -> Result<Self, HostKeyError> {
        Ok(Self(PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)?))
    }

    /// The key kept in `state`; made, with the directory, where there is none.
    pub fn kept(state: &Path) -> Result<Self, HostKeyError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| HostKeyError::Io { what, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)
            .map_err(io("make the directory", state))?;
        let path = state.join(FILE);
        match Self::load(&path) {
            Err(HostKeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                match Self::ephemeral()?.store(state, &path) {
                    Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                        Err(io("write the host key", &path)(source))
                    }
                    // Made, or another agent was quicker: what lies there counts.
                    _ => Self::load(&path),
                }
            }
            loaded => loaded,
        }
    }

    fn load(path: &Path) -> Result<Self, HostKeyError> {
        let io = |source| HostKeyError::Io { what: "read the host key", path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let uid = nix::unistd::geteuid().as_raw();
        if metadata.uid() != uid {
            return Err(HostKeyError::Owner { path: path.to_owned(), owner: metadata.uid(), uid });
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(HostKeyError::Mode { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text).map_err(io)?;
        match PrivateKey::from_openssh(&text) {
            Ok(key) if key.algorithm() == Algorithm::Ed25519 && !key.is_encrypted() => Ok(Self(key)),
            _ => Err(HostKeyError::Unusable { path: path.to_owned() }),
        }
    }

    /// Writes the key beside its name and links it there: never half a key, never over another one.
    fn store(&self, state: &Path, path: &Path) -> io::Result<()> {
        let text = self.0.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        let unfinished = state.join(format!("{FILE}.{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let linked =
            write_synced(&mut file, text.as_bytes()).and_then(|()| std::fs::hard_link(&unfinished, path));
        std::fs::remove_file(&unfinished)?;
        linked
    }

    pub(super) fn private(&self) -> &PrivateKey {
        &self.0
    }

    /// `ssh-ed25519 AAAA…`, as `--host-key` of the client takes it.
    pub fn public(&self) -> String {
        let mut key = self.0.public_key().clone();
        key.set_comment("");
        key.to_openssh().unwrap_or_default()
    }

    /// `SHA256:…`
    pub fn fingerprint(&self) -> String {
        self.0.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    /// The line that makes OpenSSH trust the server at `address`.
    pub fn known_hosts_line(&self, address: SocketAddr) -> String {
        let host = match address.port() {
            22 => address.ip().to_string(),
            port => format!("[{}]:{port}", address.ip()),
        };
        format!("{host} {}", self.public())
    }
}

fn write_synced(file: &mut File, text: &[u8]) -> io::Result<()> {
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_kept_key_is_the_same_the_next_time() {
        let state = tempfile::tempdir().expect("temp directory");
        let first = HostKey::kept(&state.path().join("made/here")).expect("made");
        let second = HostKey::kept(&state.path().join("made/here")).expect("loaded");
        assert_eq!(first.fingerprint(), second.fingerprint());
        let files = std::fs::read_dir(state.path().join("made/here")).expect("listed").count();
        assert_eq!(files, 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let state = tempfile::tempdir().expect("temp directory");
        HostKey::kept(state.path()).expect("made");
        let path = state.path().join(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        let error = HostKey::kept(state.path()).expect_err("refused");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_torn_or_foreign_file_is_not_replaced() {
        let state = tempfile::tempdir().expect("temp directory");
        let path = state.path().join(FILE);
        std::fs::write(&path, "").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        assert!(matches!(HostKey::kept(state.path()), Err(HostKeyError::Unusable { .. })));
        assert_eq!(std::fs::read(&path).expect("read"), b"");
    }

    #[test]
    fn known_hosts_names_a_port_only_where_it_is_unusual() {
        let key = HostKey::ephemeral().expect("made");
        let line = key.known_hosts_line(([127, 0, 0, 1], 2222).into());
        assert!(line.starts_with("[127.0.0.1]:2222 ssh-ed25519 AAAA"), "{line}");
        assert!(key.known_hosts_line(([127, 0, 0, 1], 22).into()).starts_with("127.0.0.1 ssh-ed25519"));
    }
}
