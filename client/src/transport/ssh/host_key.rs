//! The pinned host key: given as text or as a file, compared exactly.

use std::fmt;
use std::path::Path;

use russh::keys::{HashAlg, PublicKey};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum HostKeyError {
    #[error("cannot read the host key file {path}")]
    Read { path: String, source: std::io::Error },
    #[error(
        "{given:?} is neither a host key nor a file with one (hint: give the line that the agent printed)"
    )]
    NotAKey { given: String },
    #[error("{path} holds {count} different host keys (hint: give a file with one)")]
    Several { path: String, count: usize },
}

/// The one key that the agent may prove itself with.
#[derive(Clone, PartialEq, Eq)]
pub struct PinnedKey(PublicKey);

impl PinnedKey {
    /// Takes `ssh-ed25519 AAAA…`, a known_hosts line, or the name of a file with either.
    pub fn parse(given: &str) -> Result<Self, HostKeyError> {
        if let Some(key) = line(given) {
            return Ok(key);
        }
        if !Path::new(given).is_file() {
            return Err(HostKeyError::NotAKey { given: given.to_owned() });
        }
        let read = |source| HostKeyError::Read { path: given.to_owned(), source };
        let mut keys: Vec<Self> =
            std::fs::read_to_string(given).map_err(read)?.lines().filter_map(line).collect();
        keys.dedup();
        match (keys.pop(), keys.len()) {
            (Some(key), 0) => Ok(key),
            (Some(_), others) => Err(HostKeyError::Several { path: given.to_owned(), count: others + 1 }),
            (None, _) => Err(HostKeyError::NotAKey { given: given.to_owned() }),
        }
    }

    /// Takes `ssh-ed25519 AAAA…` or a known_hosts line, and never the name of a file.
    pub fn of_line(given: &str) -> Option<Self> {
        line(given)
    }

    pub(super) fn is(&self, key: &PublicKey) -> bool {
        self.0.key_data() == key.key_data()
    }

    /// `ssh-ed25519 AAAA…`
    pub fn line(&self) -> String {
        let mut key = self.0.clone();
        key.set_comment("");
        key.to_openssh().unwrap_or_default()
    }

    /// `SHA256:…`
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }
}

impl fmt::Debug for PinnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedKey").field(&self.fingerprint()).finish()
    }
}

/// The key in a line: its type and its body, with whatever host name before and comment after.
fn line(text: &str) -> Option<PinnedKey> {
    let text = text.trim();
    let mut words = text.split_ascii_whitespace().skip_while(|word| !is_type(word));
    let (kind, body) = (words.next()?, words.next()?);
    let before = text.split_ascii_whitespace().take_while(|word| !is_type(word)).count();
    if before > 1 || text.starts_with(['#', '@']) {
        return None;
    }
    PublicKey::from_openssh(&format!("{kind} {body}")).ok().map(PinnedKey)
}

fn is_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-"].iter().any(|kind| word.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_key_is_taken_from_a_word_a_line_or_a_file() {
        let pinned = PinnedKey::parse(KEY).expect("a key");
        let with_host = format!("[127.0.0.1]:2222 {KEY} comment");
        assert_eq!(PinnedKey::parse(&with_host).expect("a line"), pinned);
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), format!("# listening\n{with_host}\n")).expect("written");
        let path = file.path().to_str().expect("a plain name");
        assert_eq!(PinnedKey::parse(path).expect("a file"), pinned);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for given in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "/nonexistent", "ssh-ed25519 ssh-ed25519"] {
            assert!(matches!(PinnedKey::parse(given), Err(HostKeyError::NotAKey { .. })), "{given}");
        }
    }
}
