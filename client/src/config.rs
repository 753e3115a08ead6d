//! devsync.toml: the command line's settings for a project. The command line wins.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::cli::{SyncSpec, TargetWord};
use crate::rule::RestartRule;

/// The file's name.
pub const NAME: &str = "devsync.toml";

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("{path} cannot be read", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: {message}", path = path.display())]
    Parse { path: PathBuf, line: usize, message: String },
}

/// What devsync.toml may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub target: Option<TargetWord>,
    /// Instead of a target: pods with these labels.
    pub selector: Option<String>,
    pub namespace: Option<String>,
    pub context: Option<String>,
    pub container: Option<String>,
    #[serde(default)]
    pub sync: Vec<SyncSpec>,
    pub exe: Option<PathBuf>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default)]
    pub delete: bool,
    #[serde(default)]
    pub overwrite: bool,
    #[serde(default)]
    pub inplace: Vec<String>,
    #[serde(default)]
    pub restart: OneOrMany,
    pub grace: Option<f64>,
    pub build: Option<String>,
    pub identity: Option<PathBuf>,
    pub host_key: Option<String>,
}

/// `restart = "auto"` or `restart = ["*.html=none", "auto"]`.
#[derive(Debug, Default)]
pub struct OneOrMany(pub Vec<RestartRule>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Rules;
        impl<'de> serde::de::Visitor<'de> for Rules {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a restart mode or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.parse().map_err(E::custom)?]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut rules = Vec::new();
                while let Some(text) = seq.next_element::<String>()? {
                    rules.push(text.parse().map_err(serde::de::Error::custom)?);
                }
                Ok(OneOrMany(rules))
            }
        }
        de.deserialize_any(Rules)
    }
}

/// The settings of the project that `start` lies in, and the project's directory: the nearest one upwards that
/// has a devsync.toml; `start` itself and no settings where there is none.
pub fn find(start: &Path) -> Result<(Config, PathBuf), ConfigError> {
    for dir in start.ancestors() {
        let path = dir.join(NAME);
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok((parse(&path, &text)?, dir.to_owned())),
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(ConfigError::Read { path, source }),
        }
    }
    Ok((Config::default(), start.to_owned()))
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let before = &text.as_bytes()[..start];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let key = text.lines().nth(line - 1).and_then(|l| l.split_once('=')).map(|(key, _)| key.trim());
        let message = match key {
            Some(key) if !error.message().contains(&format!("`{key}`")) => {
                format!("{key}: {}", error.message())
            }
            _ => error.message().to_owned(),
        };
        ConfigError::Parse { path: path.to_owned(), line, message }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(Path::new("devsync.toml"), text).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn the_settings_are_those_of_the_command_line() {
        let text = "target = 'pid/7'\nsync = ['src:/srv/app', '.']\nrestart = ['*.html=none', 'reexec']\n\
                    grace = 2.5\nexclude = ['*.log']\ndelete = true\nbuild = 'make'\nhost-key = 'agent.pub'\n";
        let config = parse(Path::new("devsync.toml"), text).expect("parses");
        assert_eq!(config.target, Some(TargetWord::Pid(7)));
        assert_eq!(config.sync.len(), 2);
        assert_eq!(config.restart.0.len(), 2);
        assert!(config.delete && config.grace == Some(2.5));
    }

    #[test]
    fn an_error_names_line_and_key() {
        let unknown = message("sync = ['.']\nsyncc = 1\n");
        assert!(unknown.starts_with("devsync.toml:2: ") && unknown.contains("syncc"), "{unknown}");
        let mode = message("\n\nrestart = 'sometimes'\n");
        assert!(mode.starts_with("devsync.toml:3: restart: unknown restart mode"), "{mode}");
        let kind = message("delete = 'yes'\n");
        assert!(kind.starts_with("devsync.toml:1: delete: "), "{kind}");
        assert!(message("a = [").starts_with("devsync.toml:1: "));
    }
}
