//! The key that ssh logs in with: devsync's own, made once. It is good for nothing until an agent is told of it.

use std::io::{self, Write};

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

use super::{Dir, SshConfigError, io_error, replace};
use crate::replace::set_mode;

/// The public half; the key is made where there is none.
pub fn identity(dir: &Dir) -> Result<PublicKey, SshConfigError> {
    let path = dir.identity_file();
    if !path.exists() {
        make(dir)?;
    }
    let text = std::fs::read(&path).map_err(io_error("read", &path))?;
    let key = PrivateKey::from_openssh(text).ok().filter(|key| !key.is_encrypted());
    key.map(|key| key.public_key().clone()).ok_or(SshConfigError::Identity { path })
}

fn make(dir: &Dir) -> Result<(), SshConfigError> {
    let path = dir.identity_file();
    let mut key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(SshConfigError::Key)?;
    key.set_comment("devsync");
    let text = key.to_openssh(LineEnding::LF).map_err(SshConfigError::Key)?;
    let mut file = tempfile::NamedTempFile::new_in(&dir.0).map_err(io_error("write in", &dir.0))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| set_mode(file.as_file(), 0o600));
    written.map_err(io_error("write", &path))?;
    match file.persist_noclobber(&path) {
        // Another devsync was quicker: its key counts.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(io_error("write", &path)(error.error)),
        Ok(_) => {}
    }
    let public = key.public_key().to_openssh().map_err(SshConfigError::Key)?;
    replace(&path.with_extension("pub"), format!("{public}\n").as_bytes(), 0o644)
}
