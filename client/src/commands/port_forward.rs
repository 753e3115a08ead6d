//! `devsync port-forward`: local ports that lead into a pod, and to its successor when it is replaced.

use std::process::ExitCode;

use super::{say, say_json};
use crate::cli::{Output, PortForwardArgs, TargetWord};
use crate::cluster::{PortSpec, Ports, WorkloadRef, listen};
use crate::connect::Route;
use crate::error::CommandError;
use crate::report::{Event, Reporter};
use crate::settings;
use crate::signals::Signals;
use crate::transport::ssh::{Reverse, ReverseSpec};

pub async fn run(args: &PortForwardArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project()?;
    let (target, specs) = args.split()?;
    let route = settings::cluster_route(target.as_ref(), &args.cluster, &config, &project, "port-forward")?;
    let route = route.quiet(args.output.quiet);
    let workload =
        WorkloadRef::of(&route.target).ok_or_else(|| settings::no_cluster(&route, "port-forward"))?;
    let mut signals = Signals::new()?;
    let serve = async {
        let cluster = route.cluster().await?;
        let mut ports = listen(&cluster, &workload, &specs, complain).await?;
        for (address, port) in &ports.open {
            match args.output.output {
                Output::Json => say_json(&serde_json::json!({
                    "event": "forwarding", "target": workload.to_string(), "local": address.to_string(), "port": port
                }))?,
                Output::Text if !args.output.quiet => say(&format!("{address} → {workload} port {port}"))?,
                Output::Text => {}
            }
        }
        ports.serve().await;
        Ok::<(), CommandError>(())
    };
    tokio::select! {
        served = serve => served?,
        () = signals.next() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The ports of an attach; `None` where none are asked for.
pub(super) async fn beside(
    specs: &[PortSpec],
    route: &Route,
    reporter: &mut Reporter,
) -> Result<Option<Ports>, CommandError> {
    if specs.is_empty() {
        return Ok(None);
    }
    let not_here = || {
        CommandError::usage(format!("--forward: {} is in no cluster", route.target))
            .hint("leave it out: a process of this machine listens on this machine")
    };
    let workload = WorkloadRef::of(&route.target).ok_or_else(not_here)?;
    let cluster = route.cluster().await?;
    let ports = listen(&cluster, &workload, specs, complain).await?;
    for (address, port) in &ports.open {
        reporter.event(&Event::Step { text: format!("{address} → {workload} port {port}") });
    }
    Ok(Some(ports))
}

/// The ports of the pod that an attach has lead here.
pub(super) fn reverse(specs: &[ReverseSpec], route: &Route) -> Result<Reverse, CommandError> {
    if specs.is_empty() {
        return Ok(Reverse::default());
    }
    if !route.target.is_in_cluster() && !matches!(route.target, TargetWord::Ssh { .. }) {
        return Err(CommandError::usage(format!("--reverse: {} is on this machine", route.target))
            .cause("a port can lead here from a pod, or from where an agent serves SSH")
            .hint(
                "leave it out where the app shares this machine's network; a container's is docker's affair",
            ));
    }
    let twice = specs
        .iter()
        .enumerate()
        .find(|(at, spec)| specs.iter().take(*at).any(|before| before.remote == spec.remote));
    if let Some((_, ReverseSpec { remote, .. })) = twice {
        return Err(CommandError::usage(format!("--reverse: port {remote} of the pod is named twice"))
            .hint("name another one behind the address here: --reverse 5433:15432"));
    }
    Ok(Reverse { specs: specs.to_vec(), say: complain })
}

/// One connection failed; the others go on.
fn complain(text: &str) {
    eprintln!("{}", crate::report::plain_line(text));
}
