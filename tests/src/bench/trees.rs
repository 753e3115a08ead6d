//! The trees that are synced: a part of a vendored tree by a fixed rule, and what tests about it need.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const FILES: usize = 7_000;
const BYTES: u64 = 70_000_000;
const LARGEST: u64 = 256 * 1024;

/// Copies files of `vendored` to `to`, in byte order of their paths, until there are 7,000 of them or 70 MB.
///
/// Left out: files over 256 KiB, Windows bindings (import libraries), and ignore files, which would hide files
/// from devsync and not from its rivals. Returns the number of files and bytes.
pub fn trim(vendored: &Path, to: &Path) -> Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for path in sorted_files(vendored)? {
        let name = path.strip_prefix(vendored)?;
        let size = fs::symlink_metadata(&path)?.len();
        let ignore = name.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b"ignore"));
        if size > LARGEST || ignore || name.to_string_lossy().starts_with("windows") {
            continue;
        }
        if files == FILES || bytes + size > BYTES {
            break;
        }
        let destination = to.join(name);
        fs::create_dir_all(destination.parent().context("a file has a directory")?)?;
        fs::copy(&path, &destination).with_context(|| format!("copy {}", path.display()))?;
        files += 1;
        bytes += size;
    }
    Ok((files, bytes))
}

/// Every regular file below `directory`, in byte order of the paths.
pub fn sorted_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("read {}", next.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(files)
}

/// Puts a copy of `link` in the place of `target` by a rename, as a linker or `cargo install` does.
/// What comes after the copy is what a watcher sees: the caller's clock starts between the two.
pub fn stage(link: &Path, target: &Path) -> Result<PathBuf> {
    let staged = target.with_extension("linking");
    // Another directory of the same file system: writing the copy is no event in the synced one.
    let aside = target.parent().and_then(Path::parent).context("two directories up")?;
    let staged = aside.join(staged.file_name().context("a name")?);
    fs::copy(link, &staged).with_context(|| format!("copy {}", link.display()))?;
    Ok(staged)
}
