//! `devsync uninstall`: takes out what install put there, and says what stays in pods.

use std::process::ExitCode;

use super::install::connect;
use crate::cli::UninstallArgs;
use crate::cluster::{self, Step};
use crate::error::CommandError;
use crate::report::Reporter;

pub async fn run(args: &UninstallArgs) -> Result<ExitCode, CommandError> {
    let mut reporter = Reporter::new(&args.place.output);
    let mut say = |step: Step| reporter.event(&step.into());
    let (cluster, opts) = connect(&args.place).await?;
    cluster::uninstall(&cluster, &opts, &mut say).await?;
    Ok(ExitCode::SUCCESS)
}
