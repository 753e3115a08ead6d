//! `devsync shell`: a prompt in the app's root, with the app's own shell or that of the toolbox; where the agent may not
//! enter that root, the app's own through pods/exec, else one beside it, and that is said.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::AsyncWriteExt;

use super::exec::{advise, bringing_tools};
use crate::cli::{ShellArgs, TargetWord};
use crate::cluster::{self, Cluster, PodTarget};
use crate::connect::{Route, pod_of};
use crate::error::CommandError;
use crate::program::{self, End, Program, Wish};
use crate::settings;
use crate::terminal;
use crate::way;

/// As the agent looks for them; the first two by name, so that the image's PATH has a say.
const SHELLS: [&str; 4] = ["sh", "bash", "ash", "/busybox/sh"];

/// Reads a script up to the line that is its argument, and runs it; nothing but what each shell has built in.
const READ_AND_RUN: &str = "t=\nwhile IFS= read -r l; do\n  [ \"$l\" = \"$1\" ] && break\n  t=\"$t$l\n\"\ndone\nshift\n\
                            eval \"$t\" </dev/null";
/// Of a script on its way.
const BUFFER: usize = 64 * 1024;

pub async fn run(args: &ShellArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let route = settings::needed_route(&args.target, &config, &project, "shell deploy/demo")?;
    // A script on standard input is read to its end.
    let wish = Wish { words: Vec::new(), stdin: true, terminal: terminal::size() };
    let in_cluster = matches!(route.target, TargetWord::Workload { .. } | TargetWord::Selector(_));
    let pod = if in_cluster { Some(pod_of(&route).await?) } else { None };
    if let Some((cluster, pod)) = &pod
        && !pod.has_agent
    {
        return match own_shell(cluster, pod).await? {
            Ok(shell) => through_exec(cluster, pod, shell, wish).await,
            Err(why) => Err(CommandError::new(format!("{pod} has no shell, and no agent"))
                .cause(why)
                .hint(format!("devsync attach {} --toolbox --once adds one with a shell", route.name()))),
        };
    }
    // Until it is known which shell it is, nothing of the input is read.
    let (channel, way) = way::channel(&route, &wish).await?;
    if channel.is_beside
        && let Some(code) = instead(&route, pod.as_ref(), &wish).await?
    {
        return Ok(code);
    }
    let end = channel.start(&wish).await?.carry(wish.terminal.is_some()).await;
    drop(way);
    let end = end?;
    advise(&route, &end).await;
    match end {
        End::Missing(why) => Err(CommandError::new(format!("there is no shell for {}", route.name()))
            .cause(why)
            .hint_opt(bringing_tools(&route).await)),
        end => Ok(program::exit(&end)),
    }
}

/// The app's own shell, in the place of one beside it; says which of both it is.
async fn instead(
    route: &Route,
    pod: Option<&(Cluster, PodTarget)>,
    wish: &Wish,
) -> Result<Option<ExitCode>, CommandError> {
    let refused = "the agent may not enter the app's root (it has not SYS_CHROOT)";
    let why = match pod {
        Some((cluster, pod)) => match own_shell(cluster, pod).await {
            Ok(Ok(shell)) => {
                eprintln!(
                    "note: {refused}: this is {shell} of container {}, through pods/exec",
                    pod.container
                );
                return through_exec(cluster, pod, shell, wish.clone()).await.map(Some);
            }
            Ok(Err(_)) => format!("and {pod} has no shell of its own"),
            Err(error) => format!("and the app's own shell cannot be asked for: {}", error.line()),
        },
        None => format!("and no other way leads into {}", route.name()),
    };
    let why = crate::report::plain_line(&why);
    eprintln!(
        "note: {refused}, {why}: this shell is beside the app, in the agent's container; its directory is the app's \
         root, $DEVSYNC_ROOT, and names and links that begin with / are the agent's own"
    );
    Ok(None)
}

/// The first shell of the app that can be started, found out by starting it, since a program that is missing is only told
/// at its end; else why there is none.
async fn own_shell(cluster: &Cluster, pod: &PodTarget) -> Result<Result<&'static str, String>, CommandError> {
    let mut why = String::new();
    for shell in SHELLS {
        let words = [shell, "-c", "exit 0"].map(str::to_owned).to_vec();
        let wish = Wish { words, stdin: false, terminal: None };
        match cluster::exec(cluster, pod, &pod.container, &wish).await?.quietly().await? {
            End::Missing(reason) if why.is_empty() => why = reason,
            End::Missing(_) => {}
            End::Exit(_) | End::Signal(_) => return Ok(Ok(shell)),
        }
    }
    Ok(Err(why))
}

async fn through_exec(
    cluster: &Cluster,
    pod: &PodTarget,
    shell: &str,
    wish: Wish,
) -> Result<ExitCode, CommandError> {
    let with_terminal = wish.terminal.is_some();
    let program = match with_terminal || cluster::closes_input(cluster).await? {
        true => {
            let wish = Wish { words: vec![shell.to_owned()], ..wish };
            cluster::exec(cluster, pod, &pod.container, &wish).await?
        }
        false => script(cluster, pod, shell, wish).await?,
    };
    match program.carry(with_terminal).await? {
        End::Missing(why) => Err(CommandError::new(format!("{shell} of {pod} cannot be started")).cause(why)),
        end => Ok(program::exit(&end)),
    }
}

/// A script on standard input, by a server that cannot tell the shell where it ends: a line that no script has does, and
/// then it is run, without an input.
async fn script(
    cluster: &Cluster,
    pod: &PodTarget,
    shell: &str,
    wish: Wish,
) -> Result<Program, CommandError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let last = format!("end-of-script-{:x}", since.as_nanos());
    let words = [shell, "-c", READ_AND_RUN, shell, &last].map(str::to_owned).to_vec();
    let mut program = cluster::exec(cluster, pod, &pod.container, &Wish { words, ..wish }).await?;
    if let Some(mut to) = program.stdin.take() {
        let (ours, mut from) = tokio::io::duplex(BUFFER);
        program.stdin = Some(Box::new(ours));
        // It ends with what it copies, or with the program's input.
        tokio::spawn(async move {
            if tokio::io::copy(&mut from, &mut to).await.is_ok() {
                let _ = to.write_all(format!("\n{last}\n").as_bytes()).await;
                let _ = to.flush().await;
            }
        });
    }
    Ok(program)
}
