//! Files of the laptop that are replaced whole: written beside their name and renamed there.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Of a file that is new.
const USUAL_MODE: u32 = 0o644;

/// Old or new bytes, never a part. Without `mode` a file keeps the one that it has.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    set_mode(file.as_file(), mode.or_else(|| mode_of(path)).unwrap_or(USUAL_MODE))?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(unix)]
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
pub(crate) fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn mode_of(path: &Path) -> Option<u32> {
    let metadata = path.metadata().ok()?;
    Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777)
}

#[cfg(not(unix))]
fn mode_of(_: &Path) -> Option<u32> {
    None
}
