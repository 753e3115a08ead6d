//! The arguments of the tools: `exec`, `shell`, `proxy`, `ssh-config`.

use clap::Args;

use super::TargetArgs;

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
