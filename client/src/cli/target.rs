//! A target's name, and the flags that say how it is reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::transport::container::Engine;
use clap::Args;

/// Longest name of a Kubernetes object (a DNS subdomain).
const LONGEST_NAME: usize = 253;

/// How a target is named and reached.
#[derive(Debug, Clone, Default, Args)]
pub struct TargetArgs {
    /// deploy/, sts/, ds/, rs/, job/, pod/ or svc/NAME: a pod of it (or -l SELECTOR); pid/N: a process of this
    /// machine; ssh/[USER@]HOST:PORT: an agent that serves there; NAME: the [targets.NAME] of devsync.toml
    #[arg(value_name = "TARGET", conflicts_with = "selector")]
    pub target: Option<TargetWord>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The private key for an ssh/ target, or for pods where pods/exec is not allowed
    #[arg(long, value_name = "FILE", help_heading = "SSH")]
    pub identity: Option<PathBuf>,
    /// The agent's host key for an ssh/ target: a file, or the key itself
    #[arg(long, value_name = "FILE|KEY", help_heading = "SSH")]
    pub host_key: Option<String>,
}

impl TargetArgs {
    /// Whether the command line says which target is meant.
    pub fn is_named(&self) -> bool {
        self.target.is_some() || self.cluster.selector.is_some()
    }
}

/// Which cluster, and where in it: kubectl's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ClusterArgs {
    /// The pod's namespace (default: the context's)
    #[arg(short, long, value_name = "NAME", help_heading = "Kubernetes")]
    pub namespace: Option<String>,
    /// The context in the kubeconfig (default: the current one)
    #[arg(long, value_name = "NAME", help_heading = "Kubernetes")]
    pub context: Option<String>,
    /// The kubeconfig (default: $KUBECONFIG, else ~/.kube/config)
    #[arg(long, value_name = "FILE", help_heading = "Kubernetes")]
    pub kubeconfig: Option<PathBuf>,
    /// Act as this user: impersonation
    #[arg(long = "as", value_name = "USER", help_heading = "Kubernetes")]
    pub as_user: Option<String>,
    /// The app's container, where the pod has several
    #[arg(short, long, value_name = "NAME", help_heading = "Kubernetes")]
    pub container: Option<String>,
    /// A pod with these labels, instead of a TARGET
    #[arg(short = 'l', long, value_name = "LABELS", help_heading = "Kubernetes")]
    pub selector: Option<String>,
}

/// A target as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetWord {
    Pid(u32),
    Ssh {
        user: Option<String>,
        host: String,
        port: u16,
    },
    /// A container of an engine on this machine.
    Container {
        engine: Engine,
        name: String,
    },
    Workload {
        kind: WorkloadKind,
        name: String,
    },
    /// Pods by their labels.
    Selector(String),
    /// `[targets.NAME]` of devsync.toml.
    Named(String),
}

/// What has pods in Kubernetes, or is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
    Pod,
    Service,
}

impl WorkloadKind {
    pub const ALL: [Self; 7] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::Job,
        Self::Pod,
        Self::Service,
    ];

    /// The short name by which it is written: `deploy`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Deployment => "deploy",
            Self::StatefulSet => "sts",
            Self::DaemonSet => "ds",
            Self::ReplicaSet => "rs",
            Self::Job => "job",
            Self::Pod => "pod",
            Self::Service => "svc",
        }
    }

    /// The name of its resource in the API: `deployments`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::ReplicaSet => "replicasets",
            Self::Job => "jobs",
            Self::Pod => "pods",
            Self::Service => "services",
        }
    }

    /// By any of the names that kubectl takes, `deployment.apps` (its `-o name`) too.
    fn named(word: &str) -> Option<Self> {
        let word = word.split_once('.').map_or(word, |(kind, _group)| kind).to_ascii_lowercase();
        let is = |kind: &Self| {
            let plural = kind.plural();
            word == kind.short() || word == plural || plural.strip_suffix('s') == Some(&word)
        };
        if word == "po" {
            return Some(Self::Pod);
        }
        Self::ALL.into_iter().find(is)
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl TargetWord {
    /// True for what is found through a Kubernetes API.
    pub fn is_in_cluster(&self) -> bool {
        matches!(self, Self::Workload { .. } | Self::Selector(_))
    }
}

impl FromStr for TargetWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some(("pid", pid)) => match pid.parse::<u32>() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(format!("{pid:?} is no process id: pid/4711 is one")),
            },
            Some(("ssh", place)) => parse_ssh(place),
            Some((engine, name)) if Engine::parse(engine).is_some() => match Engine::parse(engine) {
                Some(engine) if !name.is_empty() => Ok(Self::Container { engine, name: name.to_owned() }),
                _ => Err(format!("the name is missing: {engine}/NAME")),
            },
            Some((kind, name)) => match WorkloadKind::named(kind) {
                Some(kind) => parse_workload(kind, name),
                None => Err(expected(kind)),
            },
            None if WorkloadKind::named(text).is_none() && is_target_name(text) => {
                Ok(Self::Named(text.to_owned()))
            }
            None => Err(expected(text)),
        }
    }
}

/// What a target may be called in devsync.toml.
pub fn is_target_name(name: &str) -> bool {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(usable)
}

fn expected(word: &str) -> String {
    let kinds = "deploy/, sts/, ds/, rs/, job/, pod/ or svc/NAME, docker/ or podman/NAME, pid/N or ssh/[USER@]HOST:PORT";
    match WorkloadKind::named(word) {
        Some(kind) => format!("the name is missing: {kind}/NAME"),
        None => format!("expected {kinds}"),
    }
}

fn parse_workload(kind: WorkloadKind, name: &str) -> Result<TargetWord, String> {
    let usual = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let sound = name.bytes().all(usual)
        && ends(name.bytes().next())
        && ends(name.bytes().last())
        && name.len() <= LONGEST_NAME;
    match sound {
        true => Ok(TargetWord::Workload { kind, name: name.to_owned() }),
        false => Err(format!("{name:?} is no name of a Kubernetes object: {kind}/demo names one")),
    }
}

fn parse_ssh(place: &str) -> Result<TargetWord, String> {
    let (user, address) = match place.rsplit_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, place),
    };
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() && port > 0 => {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            Ok(TargetWord::Ssh { user, host, port })
        }
        _ => Err("expected ssh/[USER@]HOST:PORT".to_owned()),
    }
}

impl fmt::Display for TargetWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "pid/{pid}"),
            Self::Ssh { user, host, port } => {
                let user = user.as_ref().map(|u| format!("{u}@")).unwrap_or_default();
                match host.contains(':') {
                    true => write!(f, "ssh/{user}[{host}]:{port}"),
                    false => write!(f, "ssh/{user}{host}:{port}"),
                }
            }
            Self::Container { engine, name } => write!(f, "{engine}/{name}"),
            Self::Workload { kind, name } => write!(f, "{kind}/{name}"),
            Self::Selector(labels) => write!(f, "-l {labels}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl<'de> serde::Deserialize<'de> for TargetWord {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        match String::deserialize(de)?.parse() {
            // It would name itself, or another one.
            Ok(Self::Named(name)) => Err(serde::de::Error::custom(expected(&name))),
            word => word.map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back_as_they_are_written() {
        for text in [
            "pid/1",
            "ssh/localhost:22",
            "ssh/me@10.0.0.1:2222",
            "ssh/[::1]:22",
            "deploy/demo",
            "pod/a.b-0",
            "podman/a_b",
        ] {
            assert_eq!(text.parse::<TargetWord>().map(|t| t.to_string()).as_deref(), Ok(text));
        }
        let named =
            ["api", "web-2", "Demo", "1"].map(|name| name.parse() == Ok(TargetWord::Named(name.to_owned())));
        assert_eq!(named, [true; 4]);
        let bad =
            ["pid/0", "pid/x", "pid/", "a b", "ssh/host", "ssh/:22", "ssh/host:0", "deploy/", "deploy/-a"];
        for bad in
            bad.into_iter().chain(["docker/", "deploy/a/b", "Deploy", "cronjob/x", "pod/UPPER", "deploy"])
        {
            assert!(bad.parse::<TargetWord>().is_err(), "{bad}");
        }
    }

    #[test]
    fn workloads_go_by_all_of_kubectl_s_names() {
        let kind = |text: &str| match text.parse() {
            Ok(TargetWord::Workload { kind, .. }) => Some(kind),
            _ => None,
        };
        for (text, want) in [
            ("deploy/x deployment/x deployments/x deployment.apps/x", WorkloadKind::Deployment),
            ("sts/x statefulset/x statefulset.apps/x", WorkloadKind::StatefulSet),
            ("ds/x daemonset/x", WorkloadKind::DaemonSet),
            ("rs/x replicaset/x replicaset.apps/x", WorkloadKind::ReplicaSet),
            ("job/x jobs/x job.batch/x", WorkloadKind::Job),
            ("po/x pod/x pods/x", WorkloadKind::Pod),
            ("svc/x service/x services/x", WorkloadKind::Service),
        ] {
            for text in text.split(' ') {
                assert_eq!(kind(text), Some(want), "{text}");
            }
        }
        let missing = "deployment".parse::<TargetWord>();
        assert_eq!(missing, Err("the name is missing: deploy/NAME".to_owned()));
    }
}
