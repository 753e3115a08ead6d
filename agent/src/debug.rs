//! `devsync-agent debug`: what a debugger has to know of the app, and debuggers beside it, with the app's ids.
//!
//! A debugger's protocol travels on standard input and output, so that nothing listens in the pod for longer than it
//! takes to connect. Its end of input, be it a lost connection, is the debugger's end: it lets go of the app.

mod debugpy;
mod dlv;
mod gdb;
mod look;
mod tool;

use std::io::{self, Write};

use devsync_protocol::contract::TOOLBOX;
use thiserror::Error;

use crate::target::error::TargetError;
use crate::target::find::{self, FindError, Query};
use crate::target::identity::Identity;
use tool::Tool;

#[derive(Debug, clap::Args)]
pub struct DebugArgs {
    /// Which process is the app: pid/N, container/ID or mnt/INODE; by default the only other container here.
    #[arg(long, value_name = "TARGET", default_value = "auto")]
    pub target: Query,
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Tell of the app what a debugger has to know.
    Look,
    /// gdb's remote protocol on standard input and output.
    Gdb,
    /// Delve's API on standard input and output.
    Dlv {
        /// This delve instead of the toolbox's.
        #[arg(long, value_name = "FILE")]
        debugger: Option<std::path::PathBuf>,
    },
    /// debugpy's protocol on standard input and output; its adapter listens on this port beside the app.
    Debugpy {
        #[arg(long, value_name = "PORT")]
        port: u16,
    },
    /// The app's system calls, until the end of standard input.
    Strace,
}

#[derive(Debug, Error)]
pub enum DebugError {
    #[error("{error}{}", hint(.error.hint()))]
    Find { error: FindError },
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(
        "the app (pid {pid}) is held by {name} (pid {tracer}) already (hint: let that debugger detach first)"
    )]
    Traced { pid: u32, tracer: u32, name: String },
    #[error("the app (pid {pid}) may not be traced: {cause} (hint: {hint})")]
    Refused { pid: u32, cause: String, hint: String },
    #[error(
        "there is no {tool} in {TOOLBOX} or in PATH (hint: the agent needs the image with tools: --toolbox)"
    )]
    NoTool { tool: &'static str },
    #[error("{tool} cannot be started")]
    Start { tool: String, source: io::Error },
    #[error("{tool} said nothing of where it listens")]
    Silent { tool: String },
    #[error("{tool} ended: {status}")]
    Ended { tool: String, status: std::process::ExitStatus },
    #[error("nothing of debugpy listens on port {port} beside the app (hint: devsync debug again)")]
    NoAdapter { port: u16, source: io::Error },
    #[error("cannot {what}")]
    Io { what: &'static str, source: io::Error },
}

fn hint(hint: Option<&str>) -> String {
    hint.map(|hint| format!(" (hint: {hint})")).unwrap_or_default()
}

/// Runs what was asked for; blocking.
pub fn run(args: DebugArgs) -> Result<(), DebugError> {
    let target = find::find(&args.target).map_err(|error| DebugError::Find { error })?;
    let app = Identity::open(target.app)?;
    if matches!(args.what, What::Look) {
        let mut told = look::look(&app)?;
        told.delve = told.go.as_ref().and_then(|_| dlv::version(&app));
        let mut out = io::stdout().lock();
        let written = write!(out, "{told}").and_then(|()| out.flush());
        return written.map_err(|source| DebugError::Io { what: "write to standard output", source });
    }
    if let What::Debugpy { port } = args.what {
        return debugpy::run(port);
    }
    free(&app)?;
    match args.what {
        What::Look | What::Debugpy { .. } => Ok(()),
        What::Gdb => gdb::run(Tool::find("gdbserver")?, &app),
        What::Dlv { debugger } => dlv::run(Tool::dlv(debugger)?, &app),
        What::Strace => tool::until_end_of_input(Tool::find("strace")?, &app, &["-f", "-tt", "-p"]),
    }
}

/// Refuses an app that is being traced or may not be, before anything stops it.
fn free(app: &Identity) -> Result<(), DebugError> {
    let told = look::look(app)?;
    if let Some((tracer, name)) = told.tracer {
        return Err(DebugError::Traced { pid: told.pid, tracer, name });
    }
    match told.refused {
        Some((cause, hint)) => Err(DebugError::Refused { pid: told.pid, cause, hint }),
        None => Ok(()),
    }
}
