//! One file for each command; what two of them need is here.

pub mod attach;
pub mod debug;
pub mod detach;
pub mod doctor;
pub mod exec;
pub mod inject;
pub mod install;
pub mod logs;
pub mod port_forward;
pub mod proxy;
pub mod ps;
pub mod pull;
pub mod restart;
pub mod shell;
pub mod ssh_config;
pub mod status;
pub mod uninstall;
pub mod verify;

use std::io::Write;

use serde::Serialize;

use crate::cli::TargetArgs;
use crate::config::Config;
use crate::connect::Route;
use crate::control::{self, Holder};
use crate::error::{CommandError, StdoutError};
use crate::settings;

/// Whom a command is about: a running attach, or a target that it opens a session with by itself.
pub(crate) enum Whom {
    Running(Holder),
    Target(Box<Route>),
}

/// Finds whom a command means: the attach to the named target if one runs, else the target; without a name the
/// attach of this directory or of one above it, else the target of devsync.toml.
pub(crate) fn whom(
    args: &TargetArgs,
    config: &Config,
    project: &std::path::Path,
) -> Result<Whom, CommandError> {
    let running = control::running()?;
    let route = settings::route(args, config, project);
    if args.is_named() {
        let name = route.as_ref().map(Route::name).unwrap_or_default();
        if let Some(holder) = running.into_iter().find(|h| h.target == name) {
            return Ok(Whom::Running(holder));
        }
        return route.map(Box::new).map(Whom::Target).ok_or_else(no_target);
    }
    let here = std::env::current_dir().and_then(std::fs::canonicalize).unwrap_or_default();
    for dir in here.ancestors() {
        let mut of_dir = running.iter().filter(|h| h.directory == dir);
        match (of_dir.next(), of_dir.next()) {
            (Some(holder), None) => return Ok(Whom::Running(holder.clone())),
            (Some(one), Some(other)) => {
                return Err(CommandError::usage("more than one target is attached from this directory")
                    .hint(format!("name the one that is meant: {} or {}", one.target, other.target)));
            }
            (None, _) => {}
        }
    }
    route.map(Box::new).map(Whom::Target).ok_or_else(no_target)
}

fn no_target() -> CommandError {
    CommandError::usage("no attach runs in this directory, and no target is named")
        .hint("name one: deploy/demo or pid/4711; `devsync status` lists what is attached")
}

/// Writes a line to standard output.
pub(crate) fn say(text: &str) -> Result<(), CommandError> {
    write_line(&crate::report::plain(text))
}

fn write_line(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| StdoutError(e).into())
}

pub(crate) fn say_json(value: &impl Serialize) -> Result<(), CommandError> {
    write_line(&crate::report::json(value))
}
