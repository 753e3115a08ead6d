//! `devsync exec`: a program where the app lives, its streams here, its exit status as ours.

use std::process::ExitCode;

use crate::cli::{ExecArgs, TargetWord};
use crate::cluster;
use crate::connect::{Route, pod_of};
use crate::error::CommandError;
use crate::program::{self, End, Wish};
use crate::settings;
use crate::terminal;

pub async fn run(args: &ExecArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let route = settings::route(&args.target, &config, &project).ok_or_else(|| {
        CommandError::usage("no target is named")
            .hint("devsync exec deploy/demo -- pytest, or target = \"…\" in devsync.toml")
    })?;
    let wish = wish(args)?;
    let end = match &route.target {
        TargetWord::Workload { .. } | TargetWord::Selector(_) => in_pod(&route, &wish).await?,
        TargetWord::Container { .. } | TargetWord::Pid(_) | TargetWord::Ssh { .. } | TargetWord::Named(_) => {
            return Err(CommandError::usage(format!("{} has no exec yet", route.target)));
        }
    };
    match end {
        End::Missing(why) => Err(missing(&wish, &route, &why)),
        end => Ok(program::exit(&end)),
    }
}

/// A terminal there is for a terminal here, unless it is asked for otherwise.
fn wish(args: &ExecArgs) -> Result<Wish, CommandError> {
    let terminal = terminal::size().filter(|_| !args.no_tty);
    if args.tty && terminal.is_none() {
        return Err(CommandError::usage("--tty: standard input and output here are no terminal")
            .hint("leave it out; -i passes on standard input"));
    }
    Ok(Wish { words: args.command.clone(), stdin: args.stdin, terminal })
}

async fn in_pod(route: &Route, wish: &Wish) -> Result<End, CommandError> {
    let (cluster, pod) = pod_of(route).await?;
    let program = cluster::exec(&cluster, &pod, &pod.container, wish).await?;
    program.carry(wish.terminal.is_some()).await
}

fn missing(wish: &Wish, route: &Route, why: &str) -> CommandError {
    let name = wish.words.first().map(String::as_str).unwrap_or_default();
    CommandError::new(format!("{} has no program {name} that can be run", route.name()))
        .cause(why.to_owned())
        .hint(format!("is it in the image? devsync exec {} -- ls /usr/bin", route.name()))
}
