//! The agent binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(devsync_agent::restart::helper::ARGUMENTS) {
        return devsync_agent::restart::helper::helper_main();
    }
    ExitCode::FAILURE
}
