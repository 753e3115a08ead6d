//! The kinds of values that annotations and the configuration have, and which of them are well formed.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// How a save restarts the app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Restart {
    #[default]
    Auto,
    Reexec,
    Supervise,
    None,
    /// By this signal, without `SIG`.
    Signal(String),
}

/// What becomes of the app's probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Probes {
    Keep,
    #[default]
    Relax,
    Strip,
}

/// Whom the agent is asked to run as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunAs {
    /// Root up to the level baseline, the app's ids under restricted.
    #[default]
    Auto,
    App,
    Root,
}

/// A value of a closed list.
pub(crate) trait Choice: Sized {
    /// The list, for a message.
    const ALLOWED: &'static str;
    fn parse(text: &str) -> Option<Self>;
}

const SIGNALS: [&str; 14] = [
    "HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "WINCH", "ALRM", "PIPE", "URG", "IO", "PROF",
    "VTALRM",
];

impl Choice for Restart {
    const ALLOWED: &'static str = "auto, reexec, supervise, none, signal:NAME (as in signal:HUP)";

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "auto" => Self::Auto,
            "reexec" => Self::Reexec,
            "supervise" => Self::Supervise,
            "none" => Self::None,
            _ => {
                let name = text.strip_prefix("signal:")?;
                let name = name.strip_prefix("SIG").unwrap_or(name);
                Self::Signal(SIGNALS.iter().find(|known| **known == name)?.to_string())
            }
        })
    }
}

impl Choice for Probes {
    const ALLOWED: &'static str = "keep, relax, strip";

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "keep" => Self::Keep,
            "relax" => Self::Relax,
            "strip" => Self::Strip,
            _ => return None,
        })
    }
}

impl Choice for RunAs {
    const ALLOWED: &'static str = "auto, app, root";

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "auto" => Self::Auto,
            "app" => Self::App,
            "root" => Self::Root,
            _ => return None,
        })
    }
}

impl Choice for bool {
    const ALLOWED: &'static str = "true, false";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// What a list's value looks like in the configuration: a word, so that its error can name the list.
fn choice<'de, C: Choice, D: Deserializer<'de>>(deserializer: D) -> Result<C, D::Error> {
    let text = String::deserialize(deserializer)?;
    C::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is none of {}", C::ALLOWED)))
}

macro_rules! deserialize_choices {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                choice(deserializer)
            }
        }
    )*};
}
deserialize_choices!(Restart, Probes, RunAs);

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Reexec => f.write_str("reexec"),
            Self::Supervise => f.write_str("supervise"),
            Self::None => f.write_str("none"),
            Self::Signal(name) => write!(f, "signal:{name}"),
        }
    }
}

/// An absolute path in its shortest form that a volume can be mounted at: the API refuses colons, and `/` and the
/// kernel's own file systems are nobody's to replace.
pub(crate) fn is_absolute(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    path.len() <= 1024
        && rest.split('/').all(|name| !matches!(name, "" | "." | ".."))
        && !path.contains(|c: char| c == ':' || c.is_control())
}

/// What a container runtime takes for an image's name; a wrong one would keep the pod from starting.
pub(crate) fn is_image(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let Some((path, last)) =
        name.rsplit_once('/').map(|(path, last)| (Some(path), last)).or(Some((None, name)))
    else {
        return false;
    };
    let (repository, tag) = last.split_once([':', '@']).unwrap_or((last, "latest"));
    let lower = |part: &str| {
        !part.is_empty()
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && !part.contains(|c: char| c.is_ascii_uppercase() || c == ':' || c == '@')
    };
    let mut parts = path.into_iter().flat_map(|path| path.split('/'));
    // The first may be a registry, which has a port and any letters.
    let registry = parts.next().is_none_or(|first| {
        let host = first.split_once(':');
        let port = host.is_none_or(|(_, port)| port.parse::<u16>().is_ok());
        let host = host.map_or(first, |(host, _)| host);
        port && lower(&host.to_ascii_lowercase())
    });
    name.len() <= 512
        && name.chars().all(allowed)
        && registry
        && parts.all(lower)
        && lower(repository)
        && !tag.is_empty()
        && !tag.ends_with([':', '@'])
}

/// A ConfigMap's name: what the API calls a DNS subdomain.
pub(crate) fn is_config_map(name: &str) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        assert_eq!(Restart::parse("signal:HUP"), Some(Restart::Signal("HUP".into())));
        assert_eq!(Restart::parse("signal:SIGUSR1"), Some(Restart::Signal("USR1".into())));
        for wrong in ["signal:", "signal:KILL", "signal:hup", "signal:9", "sometimes", "Auto", ""] {
            assert_eq!(Restart::parse(wrong), None, "{wrong}");
        }
        for right in ["auto", "reexec", "supervise", "none", "signal:TERM"] {
            assert_eq!(Restart::parse(right).map(|r| r.to_string()).as_deref(), Some(right));
        }
    }

    #[test]
    fn images_are_what_a_runtime_takes() {
        for right in [
            "a",
            "a:1",
            "library/a",
            "localhost/a:dev",
            "localhost:5000/A/a".to_lowercase().as_str(),
            "ghcr.io/a/b-c:1.2_3",
            "r.example:443/x/y@sha256:0123",
            "Registry.Example/x:T",
            "a/b__c:V1",
        ] {
            assert!(is_image(right), "{right}");
        }
        for wrong in [
            "",
            " a",
            "a b",
            "A",
            "ghcr.io/Team/a",
            "a:",
            "a@",
            "/a",
            "a/",
            "a//b",
            "http://a",
            "a\n",
            "r:x/a",
        ] {
            assert!(!is_image(wrong), "{wrong}");
        }
    }

    #[test]
    fn paths_are_absolute_and_short() {
        for right in ["/app", "/usr/src/app", "/a b", "/.x"] {
            assert!(is_absolute(right), "{right}");
        }
        for wrong in ["", "app", "/", "//app", "/app/", "/app/..", "/./app", "/a:b", "/a\nb"] {
            assert!(!is_absolute(wrong), "{wrong}");
        }
    }

    #[test]
    fn config_maps_have_dns_names() {
        for right in ["keys", "team.keys-1"] {
            assert!(is_config_map(right), "{right}");
        }
        for wrong in ["", "Keys", "-a", "a-", "a..b", "a_b", "a/b"] {
            assert!(!is_config_map(wrong), "{wrong}");
        }
    }
}
