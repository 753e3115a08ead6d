//! The authorized_keys file: who may log in. Read again whenever it has changed, at each login.
//!
//! Lines are split here and not by `ssh_key`'s `AuthorizedKeys`, which refuses a line with options and no comment
//! and cuts lines at any `#`; keys and options themselves are `ssh_key`'s.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use nix::libc;
use russh::keys::{PublicKey, ssh_key};
use thiserror::Error;

use super::algorithms::KEYS;
use super::key_options::{KeyOptions, OptionError, Rights};

/// Thousands of keys; more is a mistake.
const LONGEST: u64 = 1024 * 1024;

#[derive(Debug, Error)]
pub enum AuthorizedKeysError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} has mode {mode:04o}: others can write to it (hint: chmod go-w {})",
        path.display(),
        path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    #[error(
        "{} belongs to uid {owner}, not to root or the agent's uid {uid} (hint: chown {uid} {})",
        path.display(),
        path.display()
    )]
    Owner { path: PathBuf, owner: u32, uid: u32 },
    #[error("{} is not a file of at most {LONGEST} bytes", path.display())]
    NotAList { path: PathBuf },
}

/// Why a key may not log in.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("the key is not known")]
    Unknown,
    #[error("the key has expired")]
    Expired,
    #[error("the key may not be used from this address")]
    Source,
    #[error(transparent)]
    File(#[from] AuthorizedKeysError),
}

/// Why a line gives no key.
#[derive(Debug, Error)]
pub enum LineError {
    #[error(transparent)]
    Options(#[from] OptionError),
    #[error("the key cannot be read")]
    Key(#[from] ssh_key::Error),
    #[error("{0} keys are not accepted (hint: ssh-keygen -t ed25519)")]
    Algorithm(ssh_key::Algorithm),
}

#[derive(Debug)]
struct Entry {
    key: PublicKey,
    options: KeyOptions,
}

/// What tells one version of the file from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The file, with what was last read from it.
#[derive(Debug)]
pub struct AuthorizedKeys {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Arc<Vec<Entry>>)>>,
}

impl AuthorizedKeys {
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    /// Reads the file; the number of keys in it.
    pub fn load(&self) -> Result<usize, AuthorizedKeysError> {
        self.entries().map(|entries| entries.len())
    }

    /// May this key log in from there, now, and what for?
    pub(super) fn check(&self, key: &PublicKey, source: IpAddr, now: SystemTime) -> Result<Rights, Refusal> {
        let entries = self.entries()?;
        let mut refusal = Refusal::Unknown;
        // As in sshd, a key that stands there twice may use either line.
        for Entry { options, .. } in entries.iter().filter(|entry| entry.key.key_data() == key.key_data()) {
            if options.expires.is_some_and(|expires| now >= expires) {
                refusal = Refusal::Expired;
            } else if !options.permits_source(source) {
                refusal = Refusal::Source;
            } else {
                return Ok(options.rights.clone());
            }
        }
        Err(refusal)
    }

    fn entries(&self) -> Result<Arc<Vec<Entry>>, AuthorizedKeysError> {
        let error = |source| AuthorizedKeysError::Read { path: self.path.clone(), source };
        // A mounted ConfigMap is a tree of links: they are followed. O_NONBLOCK: a FIFO must not hold the login.
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path).map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        check_file(&self.path, &metadata)?;
        let stamp = Stamp::of(&metadata);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, entries)) = &*read
            && *last == stamp
        {
            return Ok(Arc::clone(entries));
        }
        let entries = Arc::new(parse(&self.path, &text(file).map_err(error)?));
        *read = Some((stamp, Arc::clone(&entries)));
        Ok(entries)
    }
}

/// The rules of sshd's StrictModes, for the file itself. Its directory is not looked at: Kubernetes mounts volumes
/// in world-writable ones.
fn check_file(path: &Path, metadata: &Metadata) -> Result<(), AuthorizedKeysError> {
    let (path, uid) = (path.to_owned(), nix::unistd::geteuid().as_raw());
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err(AuthorizedKeysError::NotAList { path });
    }
    if metadata.uid() != uid && metadata.uid() != 0 {
        return Err(AuthorizedKeysError::Owner { path, owner: metadata.uid(), uid });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(AuthorizedKeysError::Mode { path, mode: metadata.mode() & 0o7777 });
    }
    Ok(())
}

fn text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The usable lines; each other one is named in the log.
fn parse(path: &Path, text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::warn!(file = %path.display(), line = index + 1, %error, "authorized key refused");
            }
        }
    }
    entries
}

fn entry(line: &str) -> Result<Entry, LineError> {
    let (options, key) = split_options(line);
    let options = KeyOptions::parse(options)?;
    Ok(Entry { key: readable_key(key)?, options })
}

/// A key without options, of a kind that is accepted.
pub fn readable_key(text: &str) -> Result<PublicKey, LineError> {
    let key = PublicKey::from_openssh(text)?;
    if KEYS.contains(&key.algorithm()) { Ok(key) } else { Err(LineError::Algorithm(key.algorithm())) }
}

/// Options end at the first blank outside quotes; a line that begins with a key's type has none.
fn split_options(line: &str) -> (&str, &str) {
    if ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| line.starts_with(kind)) {
        return ("", line);
    }
    let (mut quoted, mut escaped) = (false, false);
    let blank = line.find(|c: char| {
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\';
        !quoted && c.is_ascii_whitespace()
    });
    let (options, key) = line.split_at(blank.unwrap_or(line.len()));
    (options, key.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7";
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn accepted(line: &str) -> bool {
        parse(Path::new("keys"), line).len() == 1
    }

    #[test]
    fn lines_as_sshd_reads_them() {
        for line in [
            KEY.to_owned(),
            format!("{KEY} a comment # with a hash"),
            format!("restrict {KEY}"),
            format!("restrict,from=\"127.0.0.1\"   {KEY} me@laptop"),
            format!("  {KEY}  "),
        ] {
            assert!(accepted(&line), "{line}");
        }
        for line in [
            format!("# {KEY}"),
            format!("environment=\"A=b\" {KEY}"),
            format!("from=\"127.0.0.1 {KEY}"),
            RSA.to_owned(),
            "ssh-ed25519 !!!!".to_owned(),
            "restrict".to_owned(),
        ] {
            assert!(!accepted(&line), "{line}");
        }
    }

    #[test]
    fn a_key_counts_only_while_the_file_has_it() {
        let directory = tempfile::tempdir().expect("temp directory");
        let path = directory.path().join("keys");
        let key = PublicKey::from_openssh(KEY).expect("a key");
        let keys = AuthorizedKeys::new(path.clone());
        let write = |text: &str| {
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        };
        let check = || keys.check(&key, HERE, SystemTime::now());
        assert!(matches!(check(), Err(Refusal::File(AuthorizedKeysError::Read { .. }))));
        write(KEY);
        assert!(check().is_ok());
        write("# nobody\n");
        assert!(matches!(check(), Err(Refusal::Unknown)));
        write(&format!("expiry-time=\"20200101Z\" {KEY}"));
        assert!(matches!(check(), Err(Refusal::Expired)));
        write(&format!("from=\"10.0.0.0/8\" {KEY}"));
        assert!(matches!(check(), Err(Refusal::Source)));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).expect("chmod");
        let refusal = check().expect_err("group can write");
        assert!(refusal.to_string().contains("chmod go-w"), "{refusal}");
    }
}
