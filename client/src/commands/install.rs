//! `devsync install`: the webhook that gives pods of development namespaces their agent.

use std::process::ExitCode;

use crate::cli::{ClusterArgs, InstallArgs, InstallationArgs};
use crate::cluster::{self, Cluster, InstallOptions, Step};
use crate::error::CommandError;
use crate::report::Reporter;
use crate::settings;

pub async fn run(args: &InstallArgs) -> Result<ExitCode, CommandError> {
    let mut reporter = Reporter::new(&args.place.output);
    let mut say = |step: Step| reporter.event(&step.into());
    let (cluster, opts) = connect(&args.place).await?;
    let opts = InstallOptions {
        image: args.image.clone(),
        agent_image: args.agent_image.clone(),
        image_pull_secret: args.image_pull_secret.clone(),
        replicas: args.replicas,
        only: args.only.clone().map(|label| (label.key, label.value)),
        args: args.injector_args.clone(),
        ..opts
    };
    cluster::install(&cluster, &opts, &mut say).await?;
    Ok(ExitCode::SUCCESS)
}

/// The cluster of an installation, and what is asked of both commands. The project's settings say where nobody needs to
/// be asked, and nothing else: a webhook is not a project's.
pub(super) async fn connect(args: &InstallationArgs) -> Result<(Cluster, InstallOptions), CommandError> {
    let (config, _) = settings::project()?;
    let place = ClusterArgs {
        context: args.context.clone(),
        kubeconfig: args.kubeconfig.clone(),
        as_user: args.as_user.clone(),
        ..ClusterArgs::default()
    };
    let opts = InstallOptions {
        namespace: args.namespace.clone(),
        dry_run: args.dry_run,
        yes: args.yes,
        allow_contexts: config.allow_contexts,
        ..InstallOptions::default()
    };
    Ok((Cluster::connect(&place).await?, opts))
}
