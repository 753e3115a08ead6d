//! `[[on_change]]` of devsync.toml: a command that runs in the container when certain files were synced, before the
//! restart. What it is; the engine runs it.

use std::path::Path;

use devsync_protocol::path::RelPath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Deserialize;
use serde::de::Error;

use crate::local::rules::is_usable_glob;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnChange {
    paths: Globs,
    run: Words,
}

impl OnChange {
    /// True where one of the changed files is meant; a glob means what it means in .gitignore at the sync's root.
    pub fn is_for(&self, path: &RelPath) -> bool {
        let path = String::from_utf8_lossy(path.as_bytes());
        self.paths.0.matched_path_or_any_parents(Path::new(&*path), false).is_ignore()
    }

    pub fn argv(&self) -> &[String] {
        &self.run.0
    }

    /// As a person would type it.
    pub fn words(&self) -> String {
        self.run.0.join(" ")
    }
}

#[derive(Debug, Clone)]
struct Globs(Gitignore);

impl<'de> Deserialize<'de> for Globs {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let globs = Vec::<String>::deserialize(de)?;
        if globs.is_empty() {
            return Err(D::Error::custom("at least one pattern is needed"));
        }
        let mut builder = GitignoreBuilder::new("");
        for glob in &globs {
            let is_nothing = glob.trim().is_empty() || glob.starts_with('#');
            if is_nothing || !is_usable_glob(glob) || builder.add_line(None, glob).is_err() {
                return Err(D::Error::custom(format!("{glob:?} is no pattern")));
            }
        }
        builder.build().map(Self).map_err(D::Error::custom)
    }
}

#[derive(Debug, Clone)]
struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(de)?;
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self(words)),
            _ => Err(D::Error::custom("a program and its arguments are needed: [\"npm\", \"ci\"]")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> OnChange {
        toml::from_str(text).expect("a rule")
    }

    #[test]
    fn a_glob_means_what_it_means_in_gitignore() {
        let rule = rule(
            "paths = ['package.json', '/requirements*.txt', 'proto/**/*.proto', 'sql/']\nrun = ['make', 'x']",
        );
        let is_for = |path: &str| rule.is_for(&RelPath::new(path).expect("a path"));
        for path in
            ["package.json", "web/package.json", "requirements-dev.txt", "proto/a/b.proto", "sql/1.up"]
        {
            assert!(is_for(path), "{path}");
        }
        for path in ["package.json.bak", "web/requirements.txt", "a.proto", "app.py", "sql"] {
            assert!(!is_for(path), "{path}");
        }
        assert_eq!((rule.argv().len(), rule.words().as_str()), (2, "make x"));
    }
}
