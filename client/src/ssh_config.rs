//! What OpenSSH needs to reach agents by name: an include file of our own, an identity, and one known_hosts file per
//! host, which `devsync proxy` writes before the server's first byte passes. Nothing is ever trusted on first use.

mod host;
mod identity;
mod install;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::transport::ssh::PinnedKey;
use crate::transport::stdio::make_private;

pub use host::{Host, proxy_words};
pub use identity::identity;
pub use install::{Installed, include_line, install, uninstall, user_config};

/// What begins a line with a host's data in the include file.
const MARK: &str = "#devsync ";

#[derive(Debug, Error)]
pub enum SshConfigError {
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}:{line}: this line is not devsync's", path.display())]
    Damaged { path: PathBuf, line: usize },
    #[error("{} is no OpenSSH key that devsync made", path.display())]
    Identity { path: PathBuf },
    #[error("a key cannot be made")]
    Key(#[source] russh::keys::ssh_key::Error),
    #[error("where your home directory is cannot be found")]
    NoHome,
}

impl SshConfigError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { path, .. } | Self::Identity { path } => {
                Some(format!("rm {}; `devsync ssh-config TARGET` makes it again", path.display()))
            }
            Self::NoHome => Some("set HOME".to_owned()),
            Self::Io { .. } | Self::Key(_) => None,
        }
    }
}

impl From<SshConfigError> for crate::error::CommandError {
    fn from(error: SshConfigError) -> Self {
        let hint = error.hint();
        Self::of(error).hint_opt(hint)
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SshConfigError {
    let path = path.to_owned();
    move |source| SshConfigError::Io { what, path, source }
}

/// The directory of all of it, which only its owner may read.
#[derive(Debug, Clone)]
pub struct Dir(PathBuf);

impl Dir {
    /// Made where it is missing.
    pub fn open(state: &Path) -> Result<Self, SshConfigError> {
        let dir = state.join("ssh");
        make_private(&dir).map_err(io_error("make the directory", &dir))?;
        let known = dir.join("known_hosts");
        make_private(&known).map_err(io_error("make the directory", &known))?;
        Ok(Self(dir))
    }

    /// The file that ~/.ssh/config includes.
    pub fn config(&self) -> PathBuf {
        self.0.join("config")
    }

    pub fn identity_file(&self) -> PathBuf {
        self.0.join("id_ed25519")
    }

    /// The known_hosts file of one host; ssh finds it by `%k`, its HostKeyAlias.
    fn known_hosts(&self, alias: &str) -> PathBuf {
        self.0.join("known_hosts").join(alias)
    }

    /// Makes `key` the only one that ssh accepts of the host.
    pub fn pin(&self, alias: &str, key: &PinnedKey) -> Result<(), SshConfigError> {
        replace(&self.known_hosts(alias), format!("{alias} {}\n", key.line()).as_bytes(), 0o600)
    }

    /// The hosts of the include file; none where there is no file.
    pub fn hosts(&self) -> Result<Vec<Host>, SshConfigError> {
        let path = self.config();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(io_error("read", &path))?,
        };
        let marked = text.lines().enumerate().filter_map(|(n, line)| Some((n, line.strip_prefix(MARK)?)));
        let read = |(n, json)| {
            serde_json::from_str(json)
                .map_err(|_| SshConfigError::Damaged { path: path.clone(), line: n + 1 })
        };
        marked.map(read).collect()
    }

    /// Writes the include file anew.
    pub fn write(&self, hosts: &[Host], program: &Path) -> Result<(), SshConfigError> {
        replace(&self.config(), self.render(hosts, program).as_bytes(), 0o600)
    }

    fn render(&self, hosts: &[Host], program: &Path) -> String {
        let mut text = "# Written by `devsync ssh-config`; what is changed here is lost.\n".to_owned();
        for host in hosts {
            let json = serde_json::to_string(host).unwrap_or_default();
            let short = host.short().filter(|short| is_unique(hosts, short));
            let names = [Some(host.name.clone()), short].into_iter().flatten().collect::<Vec<_>>().join(" ");
            let proxy = proxy_words(program, host);
            let (identity, known) = (token(&self.identity_file()), token(&self.0.join("known_hosts")));
            text.push_str(&format!(
                "\n{MARK}{json}\nHost {names}\n\
                 \tHostName {name}\n\
                 \tHostKeyAlias {name}\n\
                 \tUser dev\n\
                 \tProxyCommand {proxy}\n\
                 \tIdentityFile \"{identity}\"\n\
                 \tIdentitiesOnly yes\n\
                 \tIdentityAgent none\n\
                 \tPreferredAuthentications publickey\n\
                 \tStrictHostKeyChecking yes\n\
                 \tUserKnownHostsFile \"{known}/%k\"\n\
                 \tGlobalKnownHostsFile none\n\
                 \tHostKeyAlgorithms ssh-ed25519\n\
                 \tUpdateHostKeys no\n\
                 \tCheckHostIP no\n\
                 \tServerAliveInterval 15\n",
                name = host.name,
            ));
        }
        text
    }
}

fn is_unique(hosts: &[Host], short: &str) -> bool {
    hosts.iter().filter(|host| host.short().as_deref() == Some(short)).count() == 1
}

/// A path in a setting that knows `%` tokens.
fn token(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%%")
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SshConfigError> {
    crate::replace::replace(path, bytes, Some(mode)).map_err(io_error("replace", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, place: &str) -> Host {
        let words = vec![format!("deploy/{name}"), "-n".to_owned(), "it's".to_owned()];
        Host { name: format!("{name}.{place}.devsync"), words }
    }

    #[test]
    fn hosts_read_back_and_short_names_are_given_while_they_are_unique() {
        let state = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(&state.path().join("100% mine")).expect("made");
        assert_eq!(dir.hosts().expect("none"), []);
        let hosts = [host("demo", "a.kind"), host("demo", "b.kind"), host("web", "a.kind")];
        dir.write(&hosts, Path::new("/opt/dev sync/devsync")).expect("written");
        assert_eq!(dir.hosts().expect("some"), hosts);
        let text = std::fs::read_to_string(dir.config()).expect("text");
        assert!(text.contains("\nHost demo.a.kind.devsync\n"), "{text}");
        assert!(text.contains("\nHost web.a.kind.devsync web.devsync\n"), "{text}");
        assert!(text.contains("100%% mine/ssh/known_hosts/%k\"\n"), "{text}");
        let proxy = "ProxyCommand '/opt/dev sync/devsync' proxy --alias web.a.kind.devsync deploy/web -n 'it'\\''s'\n";
        assert!(text.contains(proxy), "{text}");
        std::fs::write(dir.config(), "\n#devsync {}\n").expect("written");
        let damaged = dir.hosts().expect_err("damaged").to_string();
        assert!(damaged.ends_with("config:2: this line is not devsync's"), "{damaged}");
    }
}
