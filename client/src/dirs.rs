//! Where devsync keeps things on the laptop: state that must stay, caches that may go.

use std::path::PathBuf;

use etcetera::BaseStrategy;

/// Kept files: what agents on this machine remember of what they wrote.
pub fn state() -> PathBuf {
    if let Some(dir) = std::env::var_os("DEVSYNC_STATE").filter(|d| !d.is_empty()) {
        return dir.into();
    }
    let base = etcetera::choose_base_strategy();
    let dir = base.map(|b| b.state_dir().unwrap_or_else(|| b.data_dir())).unwrap_or_else(|_| fallback());
    dir.join("devsync")
}

/// What can be made again: the index of digests, copies of what the pod holds, build outputs.
pub fn cache() -> PathBuf {
    if let Some(dir) = std::env::var_os("DEVSYNC_CACHE").filter(|d| !d.is_empty()) {
        return dir.into();
    }
    etcetera::choose_base_strategy().map(|b| b.cache_dir()).unwrap_or_else(|_| fallback()).join("devsync")
}

/// Without a home directory (a bare CI container) the user's own part of the temporary directory.
fn fallback() -> PathBuf {
    std::env::temp_dir().join("devsync-home")
}

/// A path as a person here would write it: relative where it lies below the current directory.
pub fn near(path: &std::path::Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let shown = match path.strip_prefix(&here) {
        Ok(rest) if rest.as_os_str().is_empty() => std::path::Path::new("."),
        Ok(rest) => rest,
        Err(_) => path,
    };
    devsync_protocol::path::display(shown.as_os_str().as_encoded_bytes())
}
