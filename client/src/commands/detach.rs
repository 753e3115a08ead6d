//! `devsync detach`: takes out of the cluster what attach put there, and nothing else.

use std::process::ExitCode;

use crate::cli::DetachArgs;
use crate::cluster::{self, DetachOptions, Step, WorkloadRef};
use crate::error::CommandError;
use crate::report::Reporter;
use crate::settings;

pub async fn run(args: &DetachArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let route = settings::needed_route(&args.target, &config, &project, "detach deploy/demo")?;
    let route = route.quiet(args.output.quiet);
    let Some(target) = WorkloadRef::of(&route.target) else {
        return Err(CommandError::usage(format!(
            "{} is in no cluster: nothing was added to it",
            route.target
        ))
        .hint("Ctrl-C in the attach ends it"));
    };
    let mut reporter = Reporter::new(&args.output);
    let mut say = |step: Step| reporter.event(&step.into());
    let cluster = route.cluster().await?;
    let opts = DetachOptions { yes: args.yes, wait: !args.no_wait, take_over: args.take_over };
    cluster::detach(&cluster, &target, &opts, &mut say).await?;
    Ok(ExitCode::SUCCESS)
}
