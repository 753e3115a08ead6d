//! devsync.toml: the command line's settings for a project. The command line wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::cli::{SyncSpec, TargetWord, is_target_name};
use crate::on_change::OnChange;
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
#[derive(Debug, Clone, Default, Deserialize)]
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
    pub delete: Option<bool>,
    pub overwrite: Option<bool>,
    #[serde(default)]
    pub inplace: Vec<String>,
    #[serde(default)]
    pub restart: OneOrMany,
    pub grace: Option<f64>,
    pub build: Option<String>,
    /// Commands that run in the container after certain files were synced.
    #[serde(default, rename = "on_change", alias = "on-change")]
    pub on_change: Vec<OnChange>,
    pub identity: Option<PathBuf>,
    pub host_key: Option<String>,
    /// Contexts of shared clusters in which attach need not ask.
    #[serde(default)]
    pub allow_contexts: Vec<String>,
    /// `[targets.NAME]`: several targets of one attach; what one does not say is as above.
    #[serde(default)]
    pub targets: BTreeMap<String, Config>,
}

impl Config {
    /// The settings of one of the targets: its own, and for the rest those of the file.
    fn with_defaults(self, file: &Config) -> Config {
        let list = |own: Vec<String>, all: &[String]| if own.is_empty() { all.to_vec() } else { own };
        // A target of its own is not also the one of the file.
        let names_target = self.target.is_some() || self.selector.is_some();
        let target = if names_target { self.target } else { file.target.clone() };
        let selector = if names_target { self.selector } else { file.selector.clone() };
        Config {
            target,
            selector,
            namespace: self.namespace.or_else(|| file.namespace.clone()),
            context: self.context.or_else(|| file.context.clone()),
            container: self.container.or_else(|| file.container.clone()),
            sync: if self.sync.is_empty() && self.exe.is_none() {
                file.sync.clone()
            } else {
                self.sync.clone()
            },
            exe: match self.sync.is_empty() {
                true => self.exe.or_else(|| file.exe.clone()),
                false => self.exe,
            },
            exclude: list(self.exclude, &file.exclude),
            delete: self.delete.or(file.delete),
            overwrite: self.overwrite.or(file.overwrite),
            inplace: list(self.inplace, &file.inplace),
            restart: if self.restart.0.is_empty() { file.restart.clone() } else { self.restart },
            grace: self.grace.or(file.grace),
            build: self.build.or_else(|| file.build.clone()),
            on_change: if self.on_change.is_empty() { file.on_change.clone() } else { self.on_change },
            identity: self.identity.or_else(|| file.identity.clone()),
            host_key: self.host_key.or_else(|| file.host_key.clone()),
            allow_contexts: list(self.allow_contexts, &file.allow_contexts),
            targets: BTreeMap::new(),
        }
    }

    /// The targets that the file names, each with all that holds for it.
    pub fn each(&self) -> Vec<(String, Config)> {
        self.targets.iter().map(|(name, own)| (name.clone(), own.clone().with_defaults(self))).collect()
    }
}

/// `restart = "auto"` or `restart = ["*.html=none", "auto"]`.
#[derive(Debug, Clone, Default)]
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
    let config: Config = read(path, text)?;
    for (name, target) in &config.targets {
        let problem = match () {
            () if !target.targets.is_empty() => "a target has no targets of its own",
            () if !is_target_name(name) => "a name is letters, digits, - _ and .",
            () => continue,
        };
        let line = text.lines().position(|line| line.contains(&format!("targets.{name}"))).unwrap_or(0) + 1;
        let message = format!("targets.{name}: {problem}");
        return Err(ConfigError::Parse { path: path.to_owned(), line, message });
    }
    Ok(config)
}

fn read(path: &Path, text: &str) -> Result<Config, ConfigError> {
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
        assert!(config.delete == Some(true) && config.grace == Some(2.5));
    }

    #[test]
    fn a_target_takes_from_the_file_what_it_does_not_say() {
        let text = "target = 'pid/1'\nsync = ['.']\ndelete = true\nrestart = 'none'\n[targets.api]\nexe = 'api'\n\
                    delete = false\n[targets.web]\nselector = 'app=web'\nrestart = 'signal:HUP'\n";
        let each = parse(Path::new("devsync.toml"), text).expect("parses").each();
        let [(api, a), (web, w)] = &each[..] else { panic!("{each:?}") };
        assert_eq!((api.as_str(), web.as_str()), ("api", "web"));
        assert_eq!((a.target.clone(), a.delete, a.sync.len()), (Some(TargetWord::Pid(1)), Some(false), 0));
        assert_eq!(a.restart.0[0].to_string(), "none");
        assert_eq!((w.target.clone(), w.selector.as_deref(), w.sync.len()), (None, Some("app=web"), 1));
        assert_eq!((w.restart.0[0].to_string().as_str(), w.delete), ("signal:HUP", Some(true)));
        let nested = message("[targets.a]\ntarget = 'pid/1'\n[targets.a.targets.b]\n");
        assert!(nested.starts_with("devsync.toml:1: targets.a: "), "{nested}");
        assert!(message("[targets.'a b']\n").contains("a name is letters"));
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
        let rule = |lines: &str| message(&format!("delete = true\n[[on_change]]\n{lines}\n"));
        assert_eq!(rule("paths = ['package.json']\nrun = ['npm', 'ci']"), "");
        for (lines, wanted) in [
            ("paths = ['a']\nrun = []", "devsync.toml:4: run: a program and its arguments are needed"),
            ("paths = ['a']\nrun = 'npm ci'", "devsync.toml:4: run: "),
            ("paths = []\nrun = ['x']", "devsync.toml:3: paths: at least one pattern"),
            ("paths = ['a', '']\nrun = ['x']", "devsync.toml:3: paths: \"\" is no pattern"),
            ("paths = ['a']", "devsync.toml:2: "),
            ("paths = ['a']\nrun = ['x']\nwhen = 1", "devsync.toml:5: "),
        ] {
            let said = rule(lines);
            assert!(said.starts_with(wanted), "{lines}: {said}");
        }
    }
}
