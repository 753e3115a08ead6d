//! `devsync detach`: takes out of the cluster what attach put there, and nothing else.

use std::process::ExitCode;

use crate::cli::DetachArgs;
use crate::cluster::{self, Cluster, DetachOptions, Step, WorkloadRef};
use crate::error::CommandError;
use crate::report::{Event, Reporter};
use crate::settings;

pub async fn run(args: &DetachArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project()?;
    let route = settings::route(&args.target, &config, &project).ok_or_else(|| {
        CommandError::usage("no target is named")
            .hint("devsync detach deploy/demo, or target = \"…\" in devsync.toml")
    })?;
    let Some(target) = WorkloadRef::of(&route.target) else {
        return Err(CommandError::usage(format!(
            "{} is in no cluster: nothing was added to it",
            route.target
        ))
        .hint("Ctrl-C in the attach ends it"));
    };
    let mut reporter = Reporter::new(&args.output);
    let mut say = |step| reporter.event(&event(step));
    let cluster = Cluster::connect(&route.cluster).await?;
    let opts = DetachOptions { yes: args.yes, wait: !args.no_wait };
    cluster::detach(&cluster, &target, &opts, &mut say).await?;
    Ok(ExitCode::SUCCESS)
}

/// A step in the cluster, as it is reported.
pub(crate) fn event(step: Step) -> Event {
    match step {
        Step::Plan(text) | Step::Progress(text) | Step::Done(text) => Event::Step { text },
        Step::Note { text, hint } => Event::Note { text, hint },
    }
}
