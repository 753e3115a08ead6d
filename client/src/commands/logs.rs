//! `devsync logs`: what the app writes, from every pod of a workload.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::cli::LogsArgs;
use crate::cluster::{Cluster, LogLine, LogWish, Logs, WorkloadRef};
use crate::error::{CommandError, StdoutError};
use crate::report::terminal_line;
use crate::settings;
use crate::signals::Signals;

/// ANSI colours that read well on dark and on light: cyan, yellow, green, magenta, blue, red.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

pub async fn run(args: &LogsArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.as_ref())?;
    let route = settings::cluster_route(args.target.as_ref(), &args.cluster, &config, &project, "logs")?;
    let workload = WorkloadRef::of(&route.target).ok_or_else(|| settings::no_cluster(&route, "logs"))?;
    let mut signals = Signals::new()?;
    let cluster = route.cluster().await?;
    let wish = LogWish {
        follow: args.follow,
        tail: args.tail.map(u32::into),
        since: args.since.map(|since| since.0),
        previous: args.previous,
        timestamps: args.timestamps,
    };
    let show = show(cluster, workload, wish);
    tokio::select! {
        shown = show => shown?,
        () = signals.next() => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(cluster: Cluster, workload: WorkloadRef, wish: LogWish) -> Result<(), CommandError> {
    let mut logs = Logs::open(cluster, workload, wish).await?;
    let terminal = std::io::stdout().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut pods: Vec<String> = Vec::new();
    while let Some(LogLine { pod, line }) = logs.next().await? {
        let prefix = match logs.several() {
            true => prefix(&mut pods, &pod, colour),
            false => String::new(),
        };
        write(&prefix, &line, terminal)?;
    }
    Ok(())
}

fn prefix(pods: &mut Vec<String>, pod: &str, colour: bool) -> String {
    let at = pods.iter().position(|known| known == pod).unwrap_or_else(|| {
        pods.push(pod.to_owned());
        pods.len() - 1
    });
    match colour {
        true => format!("\x1b[{}m[{pod}]\x1b[0m ", COLOURS[at % COLOURS.len()]),
        false => format!("[{pod}] "),
    }
}

/// To a terminal without what would steer it; into a pipe as it is.
fn write(prefix: &str, line: &[u8], terminal: bool) -> Result<(), CommandError> {
    let shown;
    let line = match terminal {
        true => {
            shown = terminal_line(line);
            shown.as_bytes()
        }
        false => line,
    };
    let mut out = std::io::stdout().lock();
    let written = out.write_all(prefix.as_bytes()).and_then(|()| out.write_all(line));
    written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).map_err(|e| StdoutError(e).into())
}
