//! The one line in ~/.ssh/config that includes ours: put at its top, once; taken out again. Nothing else there changes.

use std::io;
use std::path::{Path, PathBuf};

use super::{Dir, SshConfigError, io_error, replace};
use crate::transport::stdio::make_private;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    Changed,
    /// It was so already.
    AsBefore,
}

/// The user's own configuration of ssh.
pub fn user_config() -> Result<PathBuf, SshConfigError> {
    let home = etcetera::home_dir().map_err(|_| SshConfigError::NoHome)?;
    Ok(home.join(".ssh/config"))
}

/// `Include "…"`
pub fn include_line(dir: &Dir) -> String {
    format!("Include \"{}\"", dir.config().display())
}

/// Puts the line at the top: before any Host, which it would else belong to.
pub fn install(dir: &Dir, config: &Path) -> Result<Installed, SshConfigError> {
    let line = include_line(dir);
    let (path, text, mode) = read(config)?;
    if has(&text, &line) {
        return Ok(Installed::AsBefore);
    }
    if let Some(parent) = path.parent() {
        make_private(parent).map_err(io_error("make the directory", parent))?;
    }
    replace(&path, [format!("{line}\n").as_bytes(), &text].concat().as_slice(), mode)?;
    Ok(Installed::Changed)
}

/// Takes the line out.
pub fn uninstall(dir: &Dir, config: &Path) -> Result<Installed, SshConfigError> {
    let line = include_line(dir);
    let (path, text, mode) = read(config)?;
    if !has(&text, &line) {
        return Ok(Installed::AsBefore);
    }
    let others = text.split_inclusive(|b| *b == b'\n').filter(|l| l.trim_ascii() != line.as_bytes());
    replace(&path, &others.collect::<Vec<_>>().concat(), mode)?;
    Ok(Installed::Changed)
}

fn has(text: &[u8], line: &str) -> bool {
    text.split(|b| *b == b'\n').any(|l| l.trim_ascii() == line.as_bytes())
}

/// The file behind links, its bytes and its mode; an empty one where there is none.
fn read(config: &Path) -> Result<(PathBuf, Vec<u8>, u32), SshConfigError> {
    let path = match std::fs::canonicalize(config) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((config.to_owned(), Vec::new(), 0o600));
        }
        path => path.map_err(io_error("find", config))?,
    };
    let text = std::fs::read(&path).map_err(io_error("read", &path))?;
    let metadata = std::fs::metadata(&path).map_err(io_error("read", &path))?;
    Ok((path, text, mode(&metadata)))
}

#[cfg(unix)]
fn mode(metadata: &std::fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777
}

#[cfg(not(unix))]
fn mode(_: &std::fs::Metadata) -> u32 {
    0o600
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_line_comes_once_and_goes_again_through_a_link() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(&home.path().join("state")).expect("made");
        let (real, config) = (home.path().join("dotfiles"), home.path().join("config"));
        let before = b"Host *\n\tCompression yes\n# no end of line";
        std::fs::write(&real, before).expect("written");
        std::fs::set_permissions(&real, PermissionsExt::from_mode(0o640)).expect("mode");
        symlink("dotfiles", &config).expect("linked");
        assert_eq!(install(&dir, &config).expect("installed"), Installed::Changed);
        assert_eq!(install(&dir, &config).expect("again"), Installed::AsBefore);
        let text = std::fs::read(&config).expect("text");
        assert_eq!(text, [include_line(&dir).as_bytes(), b"\n", before].concat());
        assert!(config.is_symlink() && real.metadata().expect("there").permissions().mode() & 0o777 == 0o640);
        assert_eq!(uninstall(&dir, &config).expect("removed"), Installed::Changed);
        assert_eq!(uninstall(&dir, &config).expect("again"), Installed::AsBefore);
        assert_eq!(std::fs::read(&real).expect("text"), before);
        // Where there is none, one is made that only its owner reads.
        let new = home.path().join("new/.ssh/config");
        assert_eq!(install(&dir, &new).expect("installed"), Installed::Changed);
        assert_eq!(new.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    }
}
