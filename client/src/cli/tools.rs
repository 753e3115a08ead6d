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
