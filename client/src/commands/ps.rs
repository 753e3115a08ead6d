//! `devsync ps`: the processes of the pod by container, or those beside a process of this machine.

use std::process::ExitCode;

use devsync_protocol::process;

use super::{say, say_json};
use crate::beside::Beside;
use crate::cli::{Output, PsArgs};
use crate::error::{CommandError, Kind};
use crate::processes;
use crate::settings;

pub async fn run(args: &PsArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let route = settings::needed_route(&args.target, &config, &project, "ps deploy/demo")?;
    let beside = Beside::find(&route).await?;
    // An agent of this machine would tell of all of it.
    let words: &[&str] = if beside.is_here() { &[] } else { &["--all"] };
    let told = beside.ask("ps", words).await?;
    let (all, left) = process::parse_all(&told).map_err(|error| {
        CommandError::of(error).kind(Kind::Version).hint("the agent and this devsync must be of one release")
    })?;
    let rows = processes::rows(&all, beside.pod().map(|pod| &*pod.object));
    match args.output {
        Output::Json => rows.iter().try_for_each(say_json)?,
        Output::Text => say(&processes::table(&rows, left))?,
    }
    Ok(ExitCode::SUCCESS)
}
