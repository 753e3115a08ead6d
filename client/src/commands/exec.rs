//! `devsync exec`: a program where the app lives, its streams here, its exit status as ours.

use std::process::ExitCode;

use crate::cli::{ExecArgs, TargetWord};
use crate::cluster;
use crate::connect::{Route, pod_of};
use crate::error::CommandError;
use crate::program::{self, End, Wish};
use crate::settings;
use crate::terminal;
use crate::transport::container;
use crate::way;

pub async fn run(args: &ExecArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let route = settings::needed_route(&args.target, &config, &project, "exec deploy/demo -- pytest")?;
    let wish = wish(args)?;
    let end = match &route.target {
        TargetWord::Workload { .. } | TargetWord::Selector(_) => in_pod(&route, &wish).await?,
        TargetWord::Container { .. } | TargetWord::Pid(_) | TargetWord::Ssh { .. } | TargetWord::Named(_) => {
            through_agent(&route, &wish).await?
        }
    };
    match end {
        End::Missing(why) => Err(missing(&wish, &route, &why).await),
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

/// In the container's own cgroup where that can be, else by the agent, which has a toolbox.
async fn in_pod(route: &Route, wish: &Wish) -> Result<End, CommandError> {
    let (cluster, pod) = pod_of(route).await?;
    // Older servers cannot tell a program that its input has ended.
    if wish.stdin && wish.terminal.is_none() && pod.has_agent && !cluster::closes_input(&cluster).await? {
        return through_agent(route, wish).await;
    }
    let program = cluster::exec(&cluster, &pod, &pod.container, wish).await?;
    match program.carry(wish.terminal.is_some()).await? {
        End::Missing(_) if pod.has_agent => through_agent(route, wish).await,
        end => Ok(end),
    }
}

/// Over the agent's SSH server, in the app's root.
pub(super) async fn through_agent(route: &Route, wish: &Wish) -> Result<End, CommandError> {
    let (program, way) = way::program(route, wish).await?;
    let end = program.carry(wish.terminal.is_some()).await;
    drop(way);
    end
}

/// The command that brings a shell and more for an app that has none.
pub(super) async fn bringing_tools(route: &Route) -> Option<String> {
    match &route.target {
        TargetWord::Workload { .. } | TargetWord::Selector(_) => {
            Some(format!("devsync attach {} --toolbox --once", route.name()))
        }
        TargetWord::Container { engine, .. } => container::lacks_tools(*engine).await,
        TargetWord::Pid(_) | TargetWord::Ssh { .. } | TargetWord::Named(_) => None,
    }
}

/// Says what brings a shell where the agent could only say that there is none.
pub(super) async fn advise(route: &Route, end: &End) {
    if let (End::Exit(program::OWN_FAILURE), TargetWord::Container { .. }) = (end, &route.target)
        && let Some(command) = bringing_tools(route).await
    {
        eprintln!("hint: {command}: with that image here, a container without a shell gets one");
    }
}

async fn missing(wish: &Wish, route: &Route, why: &str) -> CommandError {
    let brought = match &route.target {
        TargetWord::Container { .. } => bringing_tools(route).await,
        _ => None,
    };
    let brought = brought.map(|command| format!("; busybox comes with: {command}")).unwrap_or_default();
    let name = wish.words.first().map(String::as_str).unwrap_or_default();
    CommandError::new(format!("{} has no program {name} that can be run", route.name()))
        .cause(why.to_owned())
        .hint(format!("is it in the image? devsync exec {} -- ls /usr/bin{brought}", route.name()))
}
