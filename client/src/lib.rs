//! The devsync command line client: watches the laptop's files, sends what changed, shows what happens.
//!
//! Portable: nothing Linux-only outside of `cfg`. Only a command module knows all other modules.

pub mod app;
pub mod ask;
pub mod beside;
pub mod build;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod compare;
pub mod config;
pub mod connect;
pub mod control;
pub mod debug;
pub mod dirs;
pub mod doctor;
pub mod elf;
pub mod engine;
pub mod error;
pub mod in_container;
pub mod installed;
pub mod local;
pub mod mapping;
pub mod on_change;
pub mod processes;
pub mod program;
pub mod project;
pub mod pull;
mod replace;
pub mod report;
pub mod rule;
pub mod session;
pub mod settings;
pub mod signals;
pub mod ssh_config;
pub mod terminal;
pub mod transport;
pub mod verify;
pub mod way;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};
use error::{CommandError, Kind};

/// Runs a command line and gives its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads to its end is help nevertheless.
            let _ = error.print();
            // What exec gives back must not be taken for the program's.
            let own = error.use_stderr() && args.get(1).is_some_and(|word| word == "exec");
            let code = if own { program::OWN_FAILURE } else { u8::try_from(error.exit_code()).unwrap_or(2) };
            return ExitCode::from(code);
        }
    };
    log(cli.verbose);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(command(&cli.command));
            // Copies for later deltas and a question's thread are not waited for.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(CommandError::new("the program cannot be started").cause(error)),
    };
    match done {
        Ok(code) => code,
        // A difference is 1; what could not be compared must not look like one.
        Err(error) if matches!(cli.command, Command::Verify(_)) && error.kind == Kind::Failure => {
            error::exit(&error.kind(Kind::Usage))
        }
        Err(error) if matches!(cli.command, Command::Exec(_)) => {
            error::exit_with(&error, program::OWN_FAILURE)
        }
        Err(error) => error::exit(&error),
    }
}

async fn command(command: &Command) -> Result<ExitCode, CommandError> {
    match command {
        Command::Attach(args) => commands::attach::run(args).await,
        Command::Detach(args) => commands::detach::run(args).await,
        Command::Restart(args) => commands::restart::run(args).await,
        Command::Status(args) => commands::status::run(args).await,
        Command::Verify(args) => commands::verify::run(args).await,
        Command::Pull(args) => commands::pull::run(args).await,
        Command::Logs(args) => commands::logs::run(args).await,
        Command::PortForward(args) => commands::port_forward::run(args).await,
        Command::Inject(args) => commands::inject::run(args).await,
        Command::Exec(args) => commands::exec::run(args).await,
        Command::Shell(args) => commands::shell::run(args).await,
        Command::Debug(args) => commands::debug::run(args).await,
        Command::Doctor(args) => commands::doctor::run(args).await,
        Command::Ps(args) => commands::ps::run(args).await,
        Command::SshConfig(args) => commands::ssh_config::run(args).await,
        Command::Proxy(args) => commands::proxy::run(args).await,
        Command::Install(args) => commands::install::run(args).await,
        Command::Uninstall(args) => commands::uninstall::run(args).await,
    }
}

/// The log goes to standard error, and says nothing unless it is asked to.
fn log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "off",
        1 => "devsync_cli=debug,agent=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("DEVSYNC_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let ansi = error::colour_on_stderr();
    let logger =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    let _ = logger.try_init();
}
