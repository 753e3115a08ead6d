//! The agent's command line: `serve` and its `authorize` and `stop`, `ids`, `--stdio`, and the helper that it starts
//! itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::authorize::{self, AskArgs, StopArgs};
use crate::debug::{self, DebugArgs};
use crate::doctor::{self, DoctorArgs};
use crate::inetd::{self, InetdArgs};
use crate::processes::{self, PsArgs};
use crate::restart::helper;
use crate::serve::{self, ServeArgs};
use crate::session::{self, SessionConfig, SessionError};
use crate::shell;
use crate::sys::{descriptors, dumpable};
use crate::target::find::Query;
use crate::target::ids::{self, IdsArgs};

/// Finds the app beside it, writes the developer's files into the app's root and restarts it in place.
///
/// It is started by `devsync` (with --stdio) or as a sidecar (serve), and rarely by hand.
#[derive(Debug, Parser)]
#[command(name = "devsync-agent", version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Speak the sync protocol on standard input and output, for one client.
    #[arg(long, requires = "state")]
    stdio: bool,
    #[command(flatten)]
    place: Option<Place>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Place {
    /// The agent's own directory, for its records and locks; made if it is missing.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Which process is the app: pid/N, container/ID or mnt/INODE; by default the only other container here.
    #[arg(long, value_name = "TARGET", default_value = "auto")]
    target: Query,
    /// Who the client is, told to the next one who comes.
    #[arg(long, hide = true, default_value = "another client")]
    peer: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be an SSH server whose subsystem `devsync` is the sync protocol.
    Serve(ServeArgs),
    /// Register a public key with the agent that serves in this container; print where it listens, and its host key.
    Authorize(AskArgs),
    /// Have the agent that serves in this container end in order.
    Stop(StopArgs),
    /// Print as whom the app runs, and end.
    Ids(IdsArgs),
    /// Be an SSH server for one connection, on standard input and output.
    Inetd(InetdArgs),
    /// Run a debugger beside the app, on standard input and output.
    Debug(DebugArgs),
    /// Print what the agent may do with the app here, predicted and then tried.
    Doctor(DoctorArgs),
    /// Print the processes beside the agent.
    Ps(PsArgs),
}

/// The whole of `main`.
pub fn run() -> ExitCode {
    // First of all, so that an app of the same uid never gets to see the agent's memory.
    let hardened = dumpable::harden();
    if std::env::args_os().skip(1).eq(helper::ARGUMENTS.map(OsString::from)) {
        return helper::helper_main();
    }
    if std::env::args_os().skip(1).eq(shell::helper::ARGUMENTS.map(OsString::from)) {
        return shell::helper::helper_main();
    }
    let cli = Cli::parse();
    log(cli.stdio
        || matches!(
            cli.command,
            Some(Command::Inetd(_) | Command::Debug(_) | Command::Doctor(_) | Command::Ps(_))
        ));
    if let Err(errno) = hardened {
        tracing::warn!(%errno, "the agent's memory is not protected from the app");
    }
    raise_descriptors();
    // Modes are always told in full.
    umask(Mode::empty());
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("devsync-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    match (cli.command, cli.place) {
        (Some(Command::Serve(args)), _) => Ok(serve::run(args)?),
        (Some(Command::Authorize(args)), _) => authorize(args),
        (Some(Command::Stop(args)), _) => Ok(authorize::stop(&args)?),
        (Some(Command::Ids(args)), _) => Ok(ids::print(&args)?),
        (Some(Command::Inetd(args)), _) => Ok(inetd::run(args)?),
        (Some(Command::Debug(args)), _) => Ok(debug::run(args)?),
        (Some(Command::Ps(args)), _) => Ok(processes::run(&args)?),
        (Some(Command::Doctor(args)), _) => doctor::run(&args).context("standard output"),
        (None, Some(place)) if cli.stdio => serve_stdio(place),
        _ => anyhow::bail!("nothing to do: give --stdio, serve or authorize (see --help)"),
    }
}

fn serve_stdio(place: Place) -> anyhow::Result<()> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned().context("standard input")?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned().context("standard output")?);
    match session::serve(input, output, &config(place)) {
        // The client knows, and says it better.
        Err(SessionError::Refused(_)) => Ok(()),
        ended => Ok(ended?),
    }
}

fn authorize(args: AskArgs) -> anyhow::Result<()> {
    let authorized = authorize::ask(args)?;
    let mut out = io::stdout().lock();
    write!(out, "{authorized}").and_then(|()| out.flush()).context("standard output")
}

fn config(place: Place) -> SessionConfig {
    SessionConfig::alone(place.target, place.state, place.peer)
}

/// To standard error; `DEVSYNC_LOG` says how much (`debug`, or `info,russh=debug`), by default only what a user should
/// know.
fn log(stdio: bool) {
    let usual = if stdio { LevelFilter::WARN } else { LevelFilter::INFO };
    let asked = std::env::var("DEVSYNC_LOG").ok().and_then(|filter| filter.parse().ok());
    // Not `EnvFilter`: it matches fields too, for which it brings half a megabyte of regular expressions.
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(usual));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
}

/// A large batch holds a directory open for each of its directories.
fn raise_descriptors() {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    if let Ok((soft, hard)) = limit {
        descriptors::remember_limit(soft, hard);
    }
    if let Ok((soft, hard)) = limit
        && soft < hard
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%errno, "large batches may run out of descriptors");
    }
}
