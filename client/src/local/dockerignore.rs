//! A `.dockerignore`: patterns relative to the sync root, after moby's patternmatcher.
//!
//! Unlike in a `.gitignore`, a pattern hides what lies below its match too, and a later `!` pattern can bring
//! back a path whose directory is hidden.

use super::glob;

#[derive(Debug)]
struct Pattern {
    text: Vec<u8>,
    negated: bool,
}

#[derive(Debug, Default)]
pub(crate) struct DockerIgnore(Vec<Pattern>);

impl DockerIgnore {
    pub(crate) fn parse(text: &[u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self(text.split(|&b| b == b'\n').filter_map(parse_line).collect())
    }

    pub(crate) fn hides(&self, path: &[u8]) -> bool {
        let mut hidden = false;
        for pattern in &self.0 {
            // Only a pattern that would turn the answer needs to be tried.
            if pattern.negated == hidden && pattern.covers(path) {
                hidden = !pattern.negated;
            }
        }
        hidden
    }

    /// True where a `!` pattern may match something below the hidden directory `dir`.
    pub(crate) fn may_keep_below(&self, dir: &[u8]) -> bool {
        self.0.iter().filter(|p| p.negated).any(|p| p.may_match_below(dir))
    }
}

impl Pattern {
    /// Matches `path` or a directory above it.
    fn covers(&self, path: &[u8]) -> bool {
        if glob::matches(&self.text, path, false) {
            return true;
        }
        path.iter()
            .enumerate()
            .filter(|&(_, &b)| b == b'/')
            .any(|(cut, _)| glob::matches(&self.text, &path[..cut], false))
    }

    fn may_match_below(&self, dir: &[u8]) -> bool {
        let mut wanted = self.text.split(|&b| b == b'/');
        for name in dir.split(|&b| b == b'/') {
            match wanted.next() {
                Some(b"**") => return true,
                Some(part) if glob::matches(part, name, false) => {}
                _ => return false,
            }
        }
        wanted.next().is_some()
    }
}

fn parse_line(line: &[u8]) -> Option<Pattern> {
    if line.first() == Some(&b'#') {
        return None;
    }
    let line = line.trim_ascii();
    let (negated, line) = match line.strip_prefix(b"!") {
        Some(rest) => (true, rest.trim_ascii()),
        None => (false, line),
    };
    let text = clean(line);
    if text.is_empty() { None } else { Some(Pattern { text, negated }) }
}

/// As Go's filepath.Clean, without the leading slash; `**x` becomes `**/*x`, which is what moby makes of it.
fn clean(pattern: &[u8]) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in pattern.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ if part.starts_with(b"**") && part.len() > 2 => {
                parts.push(b"**".to_vec());
                parts.push([b"*", &part[2..]].concat());
            }
            _ => parts.push(part.to_vec()),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides(text: &str, path: &str) -> bool {
        DockerIgnore::parse(text.as_bytes()).hides(path.as_bytes())
    }

    #[test]
    fn patterns_are_anchored_at_the_root() {
        assert!(hides("node_modules", "node_modules/a/b.js"));
        assert!(!hides("node_modules", "web/node_modules/a.js"));
        assert!(hides("**/node_modules", "web/node_modules/a.js"));
        assert!(hides("**/*.md", "README.md"));
        assert!(hides("/docs/", "docs/a"));
        assert!(hides("*/temp*", "a/temporary.txt"));
        assert!(!hides("*/temp*", "a/b/temporary.txt"));
        assert!(hides("**.pyc", "a/b/c.pyc"));
    }

    #[test]
    fn an_exception_brings_back_what_lies_in_a_hidden_directory() {
        let text = "*\n!src\n!web/*.html\nsrc/secret\n";
        assert!(!hides(text, "src/a.rs"));
        assert!(hides(text, "src/secret"));
        assert!(hides(text, "web"));
        assert!(!hides(text, "web/index.html"));
        let ignore = DockerIgnore::parse(text.as_bytes());
        assert!(ignore.may_keep_below(b"web"));
        assert!(!ignore.may_keep_below(b"node_modules"));
        assert!(!ignore.may_keep_below(b"web/deep"));
    }
}
