//! The arguments of `logs` and `port-forward`: commands that only look at a pod.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::OutputArgs;
use super::target::{ClusterArgs, TargetWord};
use crate::cluster::PortSpec;
use crate::error::CommandError;

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// deploy/, sts/, ds/, rs/, job/, pod/ or svc/NAME: all pods of it (or -l SELECTOR)
    #[arg(value_name = "TARGET", conflicts_with = "selector")]
    pub target: Option<TargetWord>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Go on with what is written; pods and containers that start later join in
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
    /// Only what is younger: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION")]
    pub since: Option<Since>,
    /// The log of the container before its last restart
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
    /// Begin each line with the time it was written
    #[arg(long)]
    pub timestamps: bool,
}

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(pub Duration);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{text:?} is no duration: 30s, 5m and 2h are");
        let unit = text.chars().last().ok_or_else(bad)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(bad()),
        };
        let number: u32 = text.strip_suffix(unit).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        Ok(Self(Duration::from_secs(u64::from(number) * seconds)))
    }
}

const FORWARD_EXAMPLES: &str = "\
Examples:
  devsync port-forward deploy/demo 8080          127.0.0.1:8080 → port 8080 of the newest ready pod
  devsync port-forward svc/web 8080:http :9090   a Service's port by name; any free port here
A connection that fails takes no other along; a replaced pod is found again. Ctrl-C ends it.";

#[derive(Debug, Args)]
#[command(after_help = FORWARD_EXAMPLES)]
pub struct PortForwardArgs {
    /// A workload or pod (else that of devsync.toml), and ports: LOCAL:REMOTE, REMOTE, or :REMOTE for any free one
    #[arg(value_name = "TARGET|[LOCAL:]REMOTE", required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl PortForwardArgs {
    /// The target, where it is named, and the ports.
    pub fn split(&self) -> Result<(Option<TargetWord>, Vec<PortSpec>), CommandError> {
        let bad = |error| CommandError::usage(error);
        let (target, ports) = match self.words.split_first() {
            Some((first, ports)) if first.contains('/') => (Some(first.parse().map_err(bad)?), ports),
            _ => (None, self.words.as_slice()),
        };
        if target.is_some() && self.cluster.selector.is_some() {
            return Err(CommandError::usage("a target and a selector are named: which is meant?"));
        }
        let ports: Vec<PortSpec> =
            ports.iter().map(|word| word.parse()).collect::<Result<_, _>>().map_err(bad)?;
        match ports.is_empty() {
            true => {
                Err(CommandError::usage("no port is named").hint("devsync port-forward deploy/demo 8080"))
            }
            false => Ok((target, ports)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!("90s".parse(), Ok(Since(Duration::from_secs(90))));
        assert_eq!("2h".parse(), Ok(Since(Duration::from_secs(7200))));
        for bad in ["", "s", "5", "-1s", "1y", "µ"] {
            assert!(bad.parse::<Since>().is_err(), "{bad}");
        }
    }
}
