//! devsync-agent: see `devsync_agent::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    devsync_agent::cli::run()
}
