//! devsync-run, the supervisor that an app container may be started under: parses, runs, exits.

use std::io::Write;
use std::process::ExitCode;

use devsync_agent::supervisor::args::{self, Command};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print(args::HELP),
        Ok(Command::Version) => print(concat!("devsync-run ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Run(config)) => match devsync_agent::supervisor::run(config) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            complain(&error);
            let _ = writeln!(std::io::stderr(), "hint: devsync-run [OPTIONS] [--] APP [ARGS]..., see --help");
            ExitCode::from(2)
        }
    }
}

/// A reader that has gone is not a failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(error: &dyn std::error::Error) {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = writeln!(stderr, "caused by: {error}");
        cause = error.source();
    }
}
