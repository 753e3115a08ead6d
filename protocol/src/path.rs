//! Validated paths as bytes: `RelPath` below a sync root and `PodPath` from the app's root.
//!
//! Only the shape is checked here; what a path resolves to is `TargetRoot`'s business in the agent.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest path in bytes, as Linux's `PATH_MAX` less its NUL.
pub const MAX_PATH: usize = 4095;
/// Longest single name in bytes, as Linux's `NAME_MAX`.
pub const MAX_NAME: usize = 255;

/// Why some bytes are not a path that devsync sends or accepts.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum PathError {
    #[error("path is empty")]
    Empty,
    #[error("path {path} is longer than {MAX_PATH} bytes ({len})")]
    TooLong { path: String, len: usize },
    #[error("name {name} in path {path} is longer than {MAX_NAME} bytes")]
    NameTooLong { path: String, name: String },
    #[error("path {path} is absolute; a path below the sync root is wanted")]
    Absolute { path: String },
    #[error("path {path} is not absolute")]
    NotAbsolute { path: String },
    #[error("path {path} has an empty, `.` or `..` component")]
    Component { path: String },
    #[error("path {path} contains a NUL byte")]
    Nul { path: String },
}

/// Bytes as a person may read them on a terminal: control characters, quotes and invalid UTF-8 escaped, and
/// shortened to 200 characters.
pub fn display(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                c if c.is_control() || is_bidi(c) => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        for b in chunk.invalid() {
            shown.push_str(&format!("\\x{b:02x}"));
        }
    }
    match shown.char_indices().nth(200) {
        Some((cut, _)) => format!("{}…", &shown[..cut]),
        None => shown,
    }
}

/// Characters that reorder what a terminal shows (Unicode TR 9), so that a name could pose as another.
pub(crate) fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check_components(bytes: &[u8], rest: &[u8]) -> Result<(), PathError> {
    if bytes.len() > MAX_PATH {
        return Err(PathError::TooLong { path: display(bytes), len: bytes.len() });
    }
    if bytes.contains(&0) {
        return Err(PathError::Nul { path: display(bytes) });
    }
    for name in rest.split(|&b| b == b'/') {
        if name.is_empty() || name == b"." || name == b".." {
            return Err(PathError::Component { path: display(bytes) });
        }
        if name.len() > MAX_NAME {
            return Err(PathError::NameTooLong { path: display(bytes), name: display(name) });
        }
    }
    Ok(())
}

/// A path below a sync root: one or more names joined by `/`, none empty, `.` or `..`, no NUL,
/// at most [`MAX_PATH`] bytes. Any other byte is allowed, invalid UTF-8 and newlines too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RelPath(#[serde(serialize_with = "crate::bytes::serialize")] Vec<u8>);

impl RelPath {
    /// Checks `bytes`; see [`PathError`] for what is refused.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes[0] == b'/' {
            return Err(PathError::Absolute { path: display(&bytes) });
        }
        check_components(&bytes, &bytes)?;
        Ok(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last name.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or(&self.0)
    }

    /// The directory that holds this path; `None` where that is the sync root itself.
    pub fn parent(&self) -> Option<RelPath> {
        let cut = self.0.iter().rposition(|&b| b == b'/')?;
        Some(Self(self.0[..cut].to_vec()))
    }

    /// `self/name`, checked again.
    pub fn join(&self, name: &[u8]) -> Result<RelPath, PathError> {
        let mut bytes = self.0.clone();
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }

    /// True where `self` is `dir` or lies below it.
    pub fn is_within(&self, dir: &RelPath) -> bool {
        self.0.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        Self::new(crate::bytes::deserialize(de)?).map_err(serde::de::Error::custom)
    }
}

impl Deref for RelPath {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&display(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

/// An absolute path in the app's root: `/`, or `/` and names as in [`RelPath`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PodPath(#[serde(serialize_with = "crate::bytes::serialize")] Vec<u8>);

impl PodPath {
    /// Checks `bytes`; a trailing slash is taken off.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let mut bytes = bytes.into();
        if bytes.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute { path: display(&bytes) });
        }
        while bytes.len() > 1 && bytes.last() == Some(&b'/') {
            bytes.pop();
        }
        if bytes.len() > 1 {
            check_components(&bytes, &bytes[1..])?;
        }
        Ok(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0 == b"/"
    }

    /// The directory and the name; `None` for `/`.
    pub fn split(&self) -> Option<(PodPath, RelPath)> {
        let cut = self.0.iter().rposition(|&b| b == b'/')?;
        let name = RelPath::new(&self.0[cut + 1..]).ok()?;
        Some((Self(self.0[..cut.max(1)].to_vec()), name))
    }

    /// `self/path`.
    pub fn join(&self, path: &RelPath) -> Result<PodPath, PathError> {
        let mut bytes = self.0.clone();
        if bytes.len() > 1 {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(path);
        Self::new(bytes)
    }
}

impl<'de> Deserialize<'de> for PodPath {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        Self::new(crate::bytes::deserialize(de)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for PodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&display(&self.0))
    }
}

impl fmt::Debug for PodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PodPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_leave_the_root() {
        for bad in ["", "/a", "..", ".", "a/..", "a/../b", "a//b", "a/", "./a", "a/./b", "a\0b"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(RelPath::new([b'n'; 256]).is_err());
        assert!(RelPath::new(b"d/".repeat(3000)).is_err());
        for bad in ["", "a", "/a/../b", "//a", "/a//b", "/a\0"] {
            assert!(PodPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keeps_any_other_byte() {
        for good in [&b"a"[..], b"a/b", b"...", b"a\nb", b"\x1b[31m", b"\xff\xfe", b"-", b"~"] {
            assert_eq!(RelPath::new(good).map(|p| p.as_bytes().to_vec()), Ok(good.to_vec()));
        }
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        assert_eq!(display(b"a\x1b[31m\nb\xff"), "a\\u{1b}[31m\\nb\\xff");
        assert_eq!(display("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert!(display(&[b'x'; 5000]).len() < 250);
    }

    #[test]
    fn parents_and_names() -> Result<(), PathError> {
        let path = RelPath::new("a/b/c")?;
        assert_eq!(path.name(), b"c");
        assert_eq!(path.parent(), Some(RelPath::new("a/b")?));
        assert_eq!(RelPath::new("a")?.parent(), None);
        assert!(path.is_within(&RelPath::new("a/b")?));
        assert!(!RelPath::new("a/bc")?.is_within(&RelPath::new("a/b")?));
        let (dir, name) = PodPath::new("/server")?.split().ok_or(PathError::Empty)?;
        assert_eq!((dir.as_bytes(), name.as_bytes()), (&b"/"[..], &b"server"[..]));
        assert_eq!(PodPath::new("/")?.join(&path)?, PodPath::new("/a/b/c/")?);
        Ok(())
    }
}
