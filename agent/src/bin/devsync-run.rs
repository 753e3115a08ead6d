//! devsync-run, the supervisor that an app container may be started under: parses, runs, exits.

use std::io::Write;
use std::process::ExitCode;

use devsync_agent::supervisor::args::{self, Command};
use devsync_agent::supervisor::{install, seed};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print(args::HELP),
        Ok(Command::Version) => print(concat!("devsync-run ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Run(config)) => match devsync_agent::supervisor::run(config) {
            Ok(code) => ExitCode::from(code),
            Err(error) => fail(&error),
        },
        Ok(Command::Install(dir)) => match install::install(&dir) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Ok(Command::Seed { from, to }) => match seed::seed(&from, &to, &mut say) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = fail(&error);
                let _ = writeln!(std::io::stderr(), "hint: {}", error.hint());
                code
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

/// One line in the container's log.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "devsync-run: {line}");
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
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
