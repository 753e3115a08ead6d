//! `devsync shell`: a prompt in the app's root, with the app's own shell or that of the toolbox.

use std::process::ExitCode;

use super::exec::through_agent;
use crate::cli::{ShellArgs, TargetWord};
use crate::cluster;
use crate::connect::pod_of;
use crate::error::CommandError;
use crate::program::{self, End, Wish};
use crate::settings;
use crate::terminal;

pub async fn run(args: &ShellArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let route = settings::needed_route(&args.target, &config, &project, "shell deploy/demo")?;
    // A script on standard input is read to its end.
    let terminal = terminal::size();
    let wish = Wish { words: Vec::new(), stdin: true, terminal };
    let in_cluster = matches!(route.target, TargetWord::Workload { .. } | TargetWord::Selector(_));
    if in_cluster {
        let (cluster, pod) = pod_of(&route).await?;
        if !pod.has_agent {
            let words = vec!["sh".to_owned()];
            let wish = Wish { words, ..wish };
            let program = cluster::exec(&cluster, &pod, &pod.container, &wish).await?;
            return match program.carry(terminal.is_some()).await? {
                End::Missing(why) => Err(CommandError::new(format!("{pod} has no shell, and no agent"))
                    .cause(why)
                    .hint(format!("devsync attach {} --toolbox --once adds one with a shell", route.name()))),
                end => Ok(program::exit(&end)),
            };
        }
    }
    Ok(program::exit(&through_agent(&route, &wish).await?))
}
