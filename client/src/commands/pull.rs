//! `devsync pull`: the explicit way back, from the pod to the laptop.

use std::process::ExitCode;

use super::{Whom, say, say_json, whom};
use crate::cli::{Output, PullArgs};
use crate::connect::{Connected, connect};
use crate::control::{self, Answer, Question};
use crate::error::CommandError;
use crate::pull::{Pulled, Wish, pull};
use crate::report::{bytes, count, plain_line};
use crate::settings;

pub async fn run(args: &PullArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let into = std::fs::canonicalize(&args.into).map_err(|e| {
        CommandError::usage(format!("--into {}: there is no such directory", args.into.display())).cause(e)
    })?;
    let (path, overwrite) = (args.path.clone(), args.overwrite);
    let pulled = match whom(&args.target, &config, &project)? {
        Whom::Running(holder) => {
            match control::ask(&holder, &Question::Pull { path, into, overwrite }).await? {
                Answer::Pulled(pulled) => pulled,
                other => return Err(control::failure(other)),
            }
        }
        Whom::Target(route) => {
            let Connected { session, events: _events, .. } = connect(&route.quiet(args.output.quiet)).await?;
            let done = pull(&session.handle(), Wish { root: 0, path, into, overwrite }).await;
            session.close().await;
            done?
        }
    };
    show(&pulled, args)
}

fn show(pulled: &Pulled, args: &PullArgs) -> Result<ExitCode, CommandError> {
    // Nothing that was asked for came.
    let failed = pulled.files == 0 && !pulled.skipped.is_empty();
    match args.output.output {
        Output::Json => say_json(pulled)?,
        Output::Text => {
            for skipped in &pulled.skipped {
                eprintln!("skipped: {}", plain_line(skipped));
            }
            if failed {
                let path = devsync_protocol::path::display(args.path.as_bytes());
                let hint = match pulled.skipped.iter().any(|skipped| skipped.contains("--overwrite")) {
                    true => "--into DIR puts it beside what is here, to be compared",
                    false => "a path in the pod is absolute, or relative to the app's working directory",
                };
                return Err(CommandError::new(format!("nothing was pulled of {path:?}")).hint(hint));
            }
            if !args.output.quiet {
                let files = count(usize::try_from(pulled.files).unwrap_or(usize::MAX), "file");
                say(&format!("pulled {files} ({})", bytes(pulled.bytes)))?;
            }
        }
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
