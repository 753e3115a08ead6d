//! One file of gitignore(5) patterns and what it says about a path.
//!
//! Follows git's dir.c (add_patterns_from_buffer, parse_path_pattern, match_basename, match_pathname) where the
//! manual leaves room.

use std::io::Read;
use std::path::Path;

use super::glob;
use super::platform::{self, IGNORE_CASE};

/// A longer ignore file is cut, so that a mistaken name cannot eat memory.
const MAX_FILE: u64 = 4 << 20;

/// What the last pattern that matches says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    Ignore,
    Keep,
}

#[derive(Debug)]
pub(crate) struct Pattern {
    text: Vec<u8>,
    negated: bool,
    dir_only: bool,
    /// No slash: matches the name alone, at any depth.
    name_only: bool,
    /// Bytes of `text` before its first special one.
    literal: usize,
}

/// Patterns in order; the last that matches decides.
#[derive(Debug, Default)]
pub(crate) struct Patterns(Vec<Pattern>);

impl Pattern {
    /// Parses a line without its newline; `None` for comments and empty lines.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        if line.first() == Some(&b'#') {
            return None;
        }
        let line = trim_spaces(line.strip_suffix(b"\r").unwrap_or(line));
        let (negated, mut text) = match line.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let dir_only = text.last() == Some(&b'/');
        if dir_only {
            text = &text[..text.len() - 1];
        }
        if line.is_empty() {
            return None;
        }
        let name_only = !text.contains(&b'/');
        let text = text.strip_prefix(b"/").unwrap_or(text).to_vec();
        let literal = text.iter().position(|&b| glob::is_special(b)).unwrap_or(text.len());
        Some(Self { text, negated, dir_only, name_only, literal })
    }

    /// `path` is relative to the directory of the ignore file.
    fn matches(&self, path: &[u8], name: &[u8], is_dir: bool) -> bool {
        if self.dir_only && !is_dir {
            return false;
        }
        let subject = if self.name_only { name } else { path };
        if subject.len() < self.literal || !same(&self.text[..self.literal], &subject[..self.literal]) {
            return false;
        }
        if self.literal == self.text.len() {
            return subject.len() == self.literal;
        }
        if self.name_only && self.is_suffix() {
            let tail = &self.text[1..];
            return subject.len() >= tail.len() && same(&subject[subject.len() - tail.len()..], tail);
        }
        // As in git, the literal beginning is taken off first, which lets `a**/b` mean `a` and `**/b`.
        if self.name_only {
            glob::matches(&self.text, subject, IGNORE_CASE)
        } else {
            glob::matches(&self.text[self.literal..], &subject[self.literal..], IGNORE_CASE)
        }
    }

    fn is_suffix(&self) -> bool {
        self.text.first() == Some(&b'*') && !self.text[1..].iter().any(|&b| glob::is_special(b))
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    if IGNORE_CASE { a.eq_ignore_ascii_case(b) } else { a == b }
}

/// Takes spaces off the end that no backslash protects.
fn trim_spaces(line: &[u8]) -> &[u8] {
    let mut keep = 0;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => at += 1,
            b'\\' => {
                at += 2;
                keep = at;
            }
            _ => {
                at += 1;
                keep = at;
            }
        }
    }
    &line[..keep.min(line.len())]
}

impl Patterns {
    pub(crate) fn parse(text: &[u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self(text.split(|&b| b == b'\n').filter_map(Pattern::parse).collect())
    }

    /// The patterns of a file; none where it is missing, unreadable, a link (as git) or no file.
    pub(crate) fn load(file: &Path) -> Self {
        Self::parse(&read_bounded(file))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the patterns say about `path`, relative to their directory.
    pub(crate) fn says(&self, path: &[u8], is_dir: bool) -> Option<Says> {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        let found = self.0.iter().rev().find(|p| p.matches(path, name, is_dir))?;
        Some(if found.negated { Says::Keep } else { Says::Ignore })
    }
}

/// The content of an ignore file, empty where there is none to be read.
pub(crate) fn read_bounded(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Ok(opened) = platform::open_read(file) else { return bytes };
    if !opened.metadata().is_ok_and(|m| m.is_file()) {
        return bytes;
    }
    match opened.take(MAX_FILE).read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(patterns: &str, path: &str, is_dir: bool) -> Option<Says> {
        Patterns::parse(patterns.as_bytes()).says(path.as_bytes(), is_dir)
    }

    #[test]
    fn the_last_match_decides() {
        assert_eq!(says("*.log\n!keep.log\n", "a/keep.log", false), Some(Says::Keep));
        assert_eq!(says("!keep.log\n*.log\n", "keep.log", false), Some(Says::Ignore));
        assert_eq!(says("*.log\n", "a/b.txt", false), None);
    }

    #[test]
    fn a_slash_anchors_and_a_trailing_one_wants_a_directory() {
        assert_eq!(says("/build", "build", false), Some(Says::Ignore));
        assert_eq!(says("/build", "a/build", true), None);
        assert_eq!(says("doc/*.txt", "doc/a.txt", false), Some(Says::Ignore));
        assert_eq!(says("doc/*.txt", "x/doc/a.txt", false), None);
        assert_eq!(says("build/", "a/build", true), Some(Says::Ignore));
        assert_eq!(says("build/", "a/build", false), None);
    }

    #[test]
    fn spaces_comments_and_line_ends() {
        assert_eq!(says("a  \r\n", "a", false), Some(Says::Ignore));
        assert_eq!(says("a\\ \n", "a ", false), Some(Says::Ignore));
        assert_eq!(says("#a\n\\#b\n", "#b", false), Some(Says::Ignore));
        assert_eq!(says("#a\n", "#a", false), None);
        assert_eq!(says("\\!a\n", "!a", false), Some(Says::Ignore));
        assert_eq!(says("\u{feff}a\n", "a", false), Some(Says::Ignore));
        assert_eq!(says("{a,b}\n", "a", false), None);
        assert_eq!(says("{a,b}\n", "{a,b}", false), Some(Says::Ignore));
    }
}
