//! The command line: words, groups and help. Values are checked for their form here, for their sense later.

mod inject;
mod install;
mod look;
mod target;
mod tools;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use devsync_protocol::restart::RestartMode;

use crate::cluster::AddArgs;
use crate::rule::RestartRule;

pub use inject::{InjectArgs, LevelWord};
pub use install::{InstallArgs, InstallationArgs, Label, UninstallArgs};
pub use look::{LogsArgs, PortForwardArgs};
pub use target::{ClusterArgs, TargetArgs, TargetWord, WorkloadKind, is_target_name};
pub use tools::{DebugArgs, DoctorArgs, ExecArgs, ProxyArgs, PsArgs, ShellArgs, SshConfigArgs};

const EXAMPLES: &str = "\
Examples:
  devsync attach deploy/demo                       sync . into the newest ready pod, restart on save
  devsync attach pid/4711                          the same with a process of this machine
  devsync attach sts/db --sync src:/srv/app/src    say yourself what goes where
  devsync attach pod/demo --exe target/debug/demo  replace the app's executable
  devsync restart                                  restart the app of the attach that runs here
  devsync verify                                   does the pod have what the laptop has?

Settings can also stand in devsync.toml; the command line wins.";

/// Save a file on the laptop, and the process in the pod runs it.
#[derive(Debug, Parser)]
#[command(name = "devsync", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Say more on standard error: -v for what devsync does, -vv for every message
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep the app in step with the files here: sync on save, restart, say when it is ready
    Attach(Box<AttachArgs>),
    /// Take the agent that attach added out of the cluster again, and nothing else
    Detach(DetachArgs),
    /// Restart the app now
    Restart(RestartArgs),
    /// Show what is attached and in which state it is
    Status(StatusArgs),
    /// Compare what the pod has with what the laptop has: exit code 1 where they differ
    Verify(VerifyArgs),
    /// Copy a file or directory from the pod to the laptop
    Pull(PullArgs),
    /// Print the app's log, of every pod where there are several
    Logs(LogsArgs),
    /// Listen on ports here that lead into the pod
    PortForward(PortForwardArgs),
    /// Put devsync into manifests: a filter for pipes, kustomize and Helm
    Inject(Box<InjectArgs>),
    /// Install the webhook that gives pods of development namespaces their agent
    Install(InstallArgs),
    /// Remove that webhook again
    Uninstall(UninstallArgs),
    /// Run a program where the app lives: tests, linters
    Exec(Box<ExecArgs>),
    /// A prompt in the app's root, in a FROM-scratch container too
    Shell(Box<ShellArgs>),
    /// A debugger on the app as it runs: gdb, lldb, delve, an editor
    Debug(Box<DebugArgs>),
    /// The processes beside the agent: who runs, as whom, with what, on which ports
    Ps(Box<PsArgs>),
    /// What will not work, from the laptop to the app, and what mends it: exit code 1 where something will not
    Doctor(Box<DoctorArgs>),
    /// Hosts for ssh, scp, sftp, rsync, sshfs and editors
    SshConfig(Box<SshConfigArgs>),
    /// Standard input and output are a stream to the agent's SSH server: ssh's ProxyCommand
    Proxy(Box<ProxyArgs>),
}

const ATTACH_EXAMPLES: &str = "\
Without --sync and --exe devsync looks at the app and at the directory it is started in:
  an interpreted app (python, node, ruby, …)    .               → the app's working directory
  a native one, and a Cargo or Go project here  its executable  → the app's executable (built for the target)
  java -jar APP.jar                             the built jar   → that jar
and says in one line what it will do before anything is written.

Examples:
  devsync attach deploy/demo
  devsync attach -l app=demo -n shop --context kind-dev
  devsync attach pid/4711 --build 'make' --exe build/server
  devsync attach pid/4711 --sync app:/srv/app --restart signal:HUP --restart '*.html=none'
  devsync attach ssh/127.0.0.1:2222 --identity ~/.ssh/id_ed25519 --host-key agent.pub --once

Ctrl-C ends the session in order: the app runs on with what it has. Exit code 0 then.";

#[derive(Debug, Clone, Args)]
#[command(after_help = ATTACH_EXAMPLES)]
pub struct AttachArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub add: AddArgs,

    /// What goes where: a file or directory here, and a path in the pod (relative to the app's working
    /// directory; that directory itself by default). Can be given more than once
    #[arg(long, value_name = "FROM[:TO]", help_heading = "What is synced")]
    pub sync: Vec<SyncSpec>,
    /// This file replaces the app's executable
    #[arg(long, value_name = "FILE", help_heading = "What is synced")]
    pub exe: Option<PathBuf>,
    /// Leave these out (as in .gitignore). Can be given more than once
    #[arg(long, value_name = "GLOB", help_heading = "What is synced")]
    pub exclude: Vec<String>,
    /// Delete files in the pod that are not here (otherwise only what devsync put there)
    #[arg(long, help_heading = "What is synced")]
    pub delete: bool,
    /// Do not ask where a large part of the files here is gone: delete it in the pod, too
    #[arg(long, help_heading = "What is synced")]
    pub accept_deletes: bool,
    /// Overwrite files that changed in the pod since devsync wrote them
    #[arg(long, help_heading = "What is synced")]
    pub overwrite: bool,
    /// Write these in place instead of renaming a new file over the old: for apps that watch one inode
    #[arg(long, value_name = "GLOB", help_heading = "What is synced")]
    pub inplace: Vec<String>,

    /// auto, reexec, supervise, signal:NAME or none; GLOB=MODE for some files only
    #[arg(long, value_name = "[GLOB=]MODE", help_heading = "Restart and build")]
    pub restart: Vec<RestartRule>,
    /// How long the app may take to shut down before it is forced
    #[arg(long, value_name = "SECONDS", help_heading = "Restart and build")]
    pub grace: Option<f64>,
    /// Run this after source changes and before the sync; where it fails nothing is sent
    #[arg(long, value_name = "CMD", help_heading = "Restart and build")]
    pub build: Option<String>,

    /// Every pod of the workload, also those that come later
    #[arg(long, conflicts_with = "dry_run", help_heading = "How it runs")]
    pub all_pods: bool,
    /// Sync once, then end
    #[arg(long, help_heading = "How it runs")]
    pub once: bool,
    /// Listen on a port here that leads into the pod, as port-forward does. Can be given more than once
    #[arg(long, value_name = "[LOCAL:]REMOTE", help_heading = "How it runs")]
    pub forward: Vec<crate::cluster::PortSpec>,
    /// Have a port in the pod lead here: with 5432 the app's 127.0.0.1:5432 is the laptop's 127.0.0.1:5432. Another
    /// port in the pod comes last. Can be given more than once
    #[arg(
        long,
        value_name = "[LOCAL_HOST:]PORT[:PORT]",
        conflicts_with = "dry_run",
        help_heading = "How it runs"
    )]
    pub reverse: Vec<crate::transport::ssh::ReverseSpec>,
    /// Say what would be sent, and write nothing
    #[arg(long, help_heading = "How it runs")]
    pub dry_run: bool,
    /// Do not ask: yes to a change in the cluster and to a proposed place
    #[arg(short, long, help_heading = "How it runs")]
    pub yes: bool,

    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// One JSON event per line on standard output
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    pub output: Output,
    /// Only errors and what needs you
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct DetachArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Do not ask whether a pod that was changed in place is to be replaced: it is
    #[arg(short, long)]
    pub yes: bool,
    /// Do not wait for the rollout
    #[arg(long)]
    pub no_wait: bool,
    /// End another person's session with it, too
    #[arg(long)]
    pub take_over: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct RestartArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// auto, reexec, supervise, signal:NAME or none (default: as the attach does it)
    #[arg(long, value_name = "MODE")]
    pub restart: Option<RestartMode>,
    /// How long the app may take to shut down before it is forced
    #[arg(long, value_name = "SECONDS")]
    pub grace: Option<f64>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// As for attach; needed where no attach runs here and devsync.toml does not say it
    #[arg(long, value_name = "FROM[:TO]")]
    pub sync: Vec<SyncSpec>,
    /// The file that the app should be running
    #[arg(long, value_name = "FILE")]
    pub exe: Option<PathBuf>,
    /// Leave these out (as in .gitignore)
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// A path in the pod: absolute, or relative to the app's working directory
    #[arg(value_name = "PATH")]
    pub path: String,
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where it is put
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub into: PathBuf,
    /// Replace files that are here already
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `FROM[:TO]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncSpec {
    pub from: PathBuf,
    /// A path in the pod; `None` is the app's working directory.
    pub to: Option<String>,
}

impl FromStr for SyncSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // On Windows the colon of a drive is not the one that separates.
        let drive = cfg!(windows) && text.get(1..2) == Some(":");
        let skip = if drive { 2 } else { 0 };
        let (from, to) = match text.get(skip..).and_then(|rest| rest.rfind(':')) {
            Some(at) => (&text[..skip + at], Some(text[skip + at + 1..].to_owned())),
            None => (text, None),
        };
        if from.is_empty() {
            return Err("FROM is missing in FROM[:TO]".to_owned());
        }
        if to.as_deref() == Some("") {
            return Err(
                "TO is missing after the colon; leave the colon out for the app's working directory".into()
            );
        }
        Ok(Self { from: PathBuf::from(from), to })
    }
}

impl<'de> serde::Deserialize<'de> for SyncSpec {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        String::deserialize(de)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_sync_names_two_places() {
        let spec = |text: &str| text.parse::<SyncSpec>().map(|s| (s.from, s.to));
        assert_eq!(spec("src"), Ok(("src".into(), None)));
        assert_eq!(spec("src:/srv/app"), Ok(("src".into(), Some("/srv/app".to_owned()))));
        assert!(spec(":/srv").is_err());
        assert!(spec("src:").is_err());
    }
}
