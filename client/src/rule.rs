//! Restart rules: which mode a changed file asks for, and what a whole batch comes to.

use std::fmt;
use std::str::FromStr;

use devsync_protocol::path::RelPath;
use devsync_protocol::restart::RestartMode;
use globset::{Glob, GlobMatcher};

/// `MODE`, or `GLOB=MODE` for files whose name or path matches.
#[derive(Debug, Clone)]
pub struct RestartRule {
    glob: Option<GlobMatcher>,
    mode: RestartMode,
}

impl FromStr for RestartRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (glob, mode) = match text.rsplit_once('=') {
            Some((glob, mode)) => {
                let glob = Glob::new(glob).map_err(|e| e.to_string())?;
                (Some(glob.compile_matcher()), mode)
            }
            None => (None, text),
        };
        let mode = mode.parse::<RestartMode>().map_err(|e| e.to_string())?;
        Ok(Self { glob, mode })
    }
}

impl fmt::Display for RestartRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.glob {
            Some(glob) => write!(f, "{}={}", glob.glob(), self.mode),
            None => write!(f, "{}", self.mode),
        }
    }
}

/// The rules of a session; without any, everything restarts the app in the best way there is.
#[derive(Debug, Clone, Default)]
pub struct RestartRules {
    by_glob: Vec<RestartRule>,
    otherwise: RestartMode,
}

impl RestartRules {
    /// Of several rules without a glob the last one counts; of those with one, the first that matches.
    pub fn new(rules: &[RestartRule], default: RestartMode) -> Self {
        let otherwise = rules.iter().rev().find(|r| r.glob.is_none()).map(|r| r.mode.clone());
        let by_glob = rules.iter().filter(|r| r.glob.is_some()).cloned().collect();
        Self { by_glob, otherwise: otherwise.unwrap_or(default) }
    }

    /// The mode of what no glob matches.
    pub fn otherwise(&self) -> &RestartMode {
        &self.otherwise
    }

    fn of(&self, path: &RelPath) -> &RestartMode {
        let path_text = String::from_utf8_lossy(path.as_bytes());
        let name_text = String::from_utf8_lossy(path.name());
        let matches = |rule: &&RestartRule| {
            let glob = rule.glob.as_ref();
            glob.is_some_and(|g| g.is_match(path_text.as_ref()) || g.is_match(name_text.as_ref()))
        };
        self.by_glob.iter().find(matches).map_or(&self.otherwise, |rule| &rule.mode)
    }

    /// What a batch of these paths asks for: the strongest mode of any of them.
    pub fn for_batch<'a>(&self, paths: impl IntoIterator<Item = &'a RelPath>) -> RestartMode {
        let modes = paths.into_iter().map(|path| self.of(path));
        modes.max_by_key(|mode| strength(mode)).cloned().unwrap_or(RestartMode::None)
    }
}

fn strength(mode: &RestartMode) -> u8 {
    match mode {
        RestartMode::None => 0,
        RestartMode::Signal(_) => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> RestartRules {
        let rules: Vec<_> = texts.iter().map(|t| t.parse().expect("a rule")).collect();
        RestartRules::new(&rules, RestartMode::Auto)
    }

    fn paths(names: &[&str]) -> Vec<RelPath> {
        names.iter().map(|n| RelPath::new(*n).expect("a path")).collect()
    }

    #[test]
    fn the_strongest_mode_of_a_batch_counts() {
        let rules = rules(&["*.html=none", "*.css=none", "conf/*=signal:HUP", "reexec"]);
        let mode = |names: &[&str]| rules.for_batch(&paths(names)).to_string();
        assert_eq!(mode(&["a/b.html", "x.css"]), "none");
        assert_eq!(mode(&["a/b.html", "conf/x"]), "signal:HUP");
        assert_eq!(mode(&["a/b.html", "conf/x", "main.py"]), "reexec");
        assert_eq!(mode(&[]), "none");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in ["*.html", "*.html=never", "[=none", ""] {
            assert!(bad.parse::<RestartRule>().is_err(), "{bad:?}");
        }
    }
}
