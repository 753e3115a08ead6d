//! The arguments of the tools: `exec`, `shell`, `debug`, `ps`, `doctor`, `proxy`, `ssh-config`.

use std::path::PathBuf;

use clap::Args;

use super::{Output, OutputArgs, TargetArgs};

const EXEC_EXAMPLES: &str = "\
Examples:
  devsync exec deploy/demo -- pytest -q           tests where the app lives, with the files that were synced
  devsync exec deploy/demo -- ruff check
  git diff | devsync exec -i deploy/demo -- wc -l
  devsync attach deploy/demo --once --yes && devsync exec deploy/demo -- pytest     in CI, without a terminal

The exit code is the program's (128 and the signal's number where one ended it); 255 where devsync itself failed.";

#[derive(Debug, Args)]
#[command(after_help = EXEC_EXAMPLES)]
pub struct ExecArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Pass on standard input (with a terminal it always is)
    #[arg(short = 'i', long = "stdin")]
    pub stdin: bool,
    /// With a terminal in the container (default: where standard input and output are one)
    #[arg(short, long)]
    pub tty: bool,
    /// Without a terminal in the container, whatever is here
    #[arg(short = 'T', long, conflicts_with = "tty")]
    pub no_tty: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Write the agent's host key for ssh under this name, which `devsync ssh-config` gave it
    #[arg(long, value_name = "NAME", value_parser = alias)]
    pub alias: Option<String>,
}

/// A host name, since it becomes that of a file.
fn alias(text: &str) -> Result<String, String> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match text.chars().all(usual) && text.ends_with(".devsync") && !text.starts_with('.') {
        true => Ok(text.to_owned()),
        false => Err("no name that `devsync ssh-config` gives".to_owned()),
    }
}

const SSH_CONFIG_EXAMPLES: &str = "\
Examples:
  devsync ssh-config deploy/demo --install     then: ssh demo.devsync, scp, sftp, rsync, sshfs, editors
  devsync ssh-config                           the hosts that there are
  devsync ssh-config deploy/demo --remove      without this one; without a target: all of it, and the Include line";

#[derive(Debug, Args)]
#[command(after_help = SSH_CONFIG_EXAMPLES)]
pub struct SshConfigArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Add the Include line to ~/.ssh/config
    #[arg(long, conflicts_with = "remove")]
    pub install: bool,
    /// Take the target's host out; without a target all of it, and the Include line
    #[arg(long)]
    pub remove: bool,
}

const DEBUG_EXAMPLES: &str = "\
Examples:
  devsync debug deploy/demo                    waits for gdb, lldb, dlv or an editor; says how to connect
  devsync debug deploy/demo --write            and writes the launch.json for VS Code
  devsync debug pid/4711 --symbols build/demo  with the unstripped executable of the same build
  devsync debug deploy/demo --stacks           the stacks of all threads, once
  gdb target/debug/demo -ex 'target remote | devsync debug deploy/demo --stdio'
  lldb target/debug/demo -o 'gdb-remote 127.0.0.1:2345'

The app is stopped when a debugger connects, and runs on when it goes: by detaching, by Ctrl-C here, or by a lost
connection. The debugger runs in the agent's container (attach --toolbox), for pid/N on this machine.";

#[derive(Debug, Args)]
#[command(after_help = DEBUG_EXAMPLES)]
pub struct DebugArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// The unstripped executable here (default: --exe of devsync.toml)
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
    /// Listen on this port here (default: 2345, or a free one)
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Write .vscode/launch.json
    #[arg(long)]
    pub write: bool,
    /// A delve of your own, where the app was built with another Go (pid/N)
    #[arg(long, value_name = "FILE")]
    pub debugger: Option<PathBuf>,
    /// The debugger's protocol on standard input and output
    #[arg(long, conflicts_with_all = ["port", "write"])]
    pub stdio: bool,
    /// End when the first debugger has gone
    #[arg(long)]
    pub once: bool,
    /// Show the app's system calls instead
    #[arg(long, conflicts_with_all = ["stdio", "stacks", "core", "write"])]
    pub strace: bool,
    /// Print the stacks of all threads once, with the gdb that is here
    #[arg(long, conflicts_with_all = ["stdio", "core", "write"])]
    pub stacks: bool,
    /// Write a core file of the app here, with the gdb that is here; the app runs on
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdio", "write"])]
    pub core: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ShellArgs {
    #[command(flatten)]
    pub target: TargetArgs,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  devsync doctor deploy/demo      your rights, the namespace, the webhook, the pod's images, the agent, the app
  devsync doctor pid/4711         what the agent may do with a process of this machine
  devsync doctor -n shop          without a target: the laptop and the cluster

Nothing is changed: what can be tried without leaving anything is tried, the rest is predicted.";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// As text, or as one JSON document
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// A table, or one JSON object for each process
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}
