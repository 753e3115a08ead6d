//! The command line client: parses, runs, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    devsync_cli::run(std::env::args_os())
}
