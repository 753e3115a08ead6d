//! `devsync attach`: finds what is to be attached to, and keeps all of it in step until it is ended.

mod fleet;
mod one;

use std::process::ExitCode;

use tokio::task::JoinSet;

use crate::cli::AttachArgs;
use crate::cluster::{self, AddOptions, Added, Step};
use crate::config::Config;
use crate::control::{self, Desk, Holder};
use crate::error::{CommandError, Kind};
use crate::report::{Event, Reporter};
use crate::settings::{self, Settings};
use crate::signals::Signals;
use one::{One, Shared};

pub async fn run(args: &AttachArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let mut targets = targets(args, config, &project)?;
    let mut signals = Signals::new()?;
    let shared = Shared::new(args);
    let (stop, now) = (shared.stop.clone(), shared.now.clone());
    let attach = async {
        match (targets.pop(), targets.is_empty()) {
            (Some(one), true) => one_target(args, one, shared, false).await.map(|()| ExitCode::SUCCESS),
            (last, _) => {
                targets.extend(last);
                several(args, targets, shared).await
            }
        }
    };
    let mut attach = std::pin::pin!(attach);
    loop {
        tokio::select! {
            ended = &mut attach => return ended,
            // The first one ends everything in order, the second one at once.
            () = signals.next() => if stop.is_cancelled() { now.cancel() } else { stop.cancel() },
        }
    }
}

/// The targets of the command line, else those of devsync.toml.
fn targets(args: &AttachArgs, config: Config, project: &std::path::Path) -> Result<Vec<One>, CommandError> {
    let several = if args.target.is_named() { Vec::new() } else { config.each() };
    let of = |name: Option<String>, config: Config| {
        let mut route = settings::route(&args.target, &config, project).ok_or_else(|| match &name {
            Some(name) => CommandError::usage(format!("[targets.{name}] of devsync.toml names no target"))
                .hint("target = \"deploy/demo\""),
            None => CommandError::usage("no target is named")
                .hint("devsync attach deploy/demo, or target = \"…\" in devsync.toml"),
        })?;
        route = route.quiet(args.output.quiet);
        route.take_over = args.add.take_over;
        route.reverse = super::port_forward::reverse(&args.reverse, &route)?;
        let add = AddOptions {
            args: args.add.clone(),
            yes: args.yes,
            overwrite: args.overwrite,
            dry_run: args.dry_run,
            allow_contexts: config.allow_contexts.clone(),
        };
        let settings = Settings::new(args, config, project.to_owned())?;
        Ok::<_, CommandError>(One { name: name.unwrap_or_else(|| route.name()), route, settings, add })
    };
    let mut targets: Vec<One> = match several.is_empty() {
        true => vec![of(None, config)?],
        false => {
            several.into_iter().map(|(name, config)| of(Some(name), config)).collect::<Result<_, _>>()?
        }
    };
    share_logins(&mut targets);
    Ok(targets)
}

/// Targets of one cluster log in once.
fn share_logins(targets: &mut [One]) {
    for at in 1..targets.len() {
        let (before, [one, ..]) = targets.split_at_mut(at) else { return };
        if let Some(same) = before.iter().find(|other| other.route.cluster == one.route.cluster) {
            one.route.login = same.route.login.clone();
        }
    }
}

/// One target, or all pods of one.
async fn one_target(
    args: &AttachArgs,
    mut one: One,
    shared: Shared,
    is_one_of_several: bool,
) -> Result<(), CommandError> {
    let desk = Desk::default();
    let holder = Holder {
        pid: std::process::id(),
        target: cluster::attached_to(&args.add, &one.route).name(),
        directory: one.settings.project.clone(),
        since: shared.since.clone(),
    };
    // Looking on needs no claim, beside a running attach either.
    let _attached = match args.dry_run {
        true => None,
        false => Some(control::listen(&holder, desk.clone())?),
    };
    let reporter = Reporter::new(&args.output);
    let mut reporter =
        if is_one_of_several { reporter.one_of_several(&one.name) } else { reporter.of(&one.name) };
    if !add_agent(&mut one, &shared, &mut reporter).await? {
        return Ok(());
    }
    // Until the attach ends.
    let _ports = tokio::select! {
        ports = super::port_forward::beside(&args.forward, &one.route, &mut reporter) => ports?,
        () = shared.stop.cancelled() => return Ok(()),
    };
    match args.all_pods {
        true => fleet::run(one, shared, &desk, &args.output).await,
        false => one::run(one, shared, &desk, reporter).await,
    }
}

/// Several at a time: one that fails does not end the others, and the worst exit code is that of all.
async fn several(args: &AttachArgs, targets: Vec<One>, shared: Shared) -> Result<ExitCode, CommandError> {
    let args = std::sync::Arc::new(args.clone());
    let mut tasks = JoinSet::new();
    for one in targets {
        let (args, shared, name) = (args.clone(), shared.for_one(), one.name.clone());
        tasks.spawn(async move { (name, one_target(&args, one, shared, true).await) });
    }
    let mut worst = None::<Kind>;
    while let Some(ended) = tasks.join_next().await {
        let (name, result) =
            ended.map_err(|error| CommandError::new("the attach to a target failed").cause(error))?;
        let Err(error) = result else { continue };
        if error.is_broken_pipe() {
            return Err(error);
        }
        worst = worst.into_iter().chain([error.kind]).max_by_key(|kind| kind.code());
        let mut reporter = Reporter::new(&args.output).one_of_several(&name);
        reporter.error(&error);
    }
    Ok(worst.map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.code())))
}

/// Sees to it that a target in a cluster has an agent; false where that was ended, or was all that was asked for.
async fn add_agent(one: &mut One, shared: &Shared, reporter: &mut Reporter) -> Result<bool, CommandError> {
    let name = one.route.name();
    let mut say = |step: Step| reporter.event(&step.into());
    tokio::select! {
        added = cluster::ensure_agent(&mut one.route, &one.add, &mut say) => Ok(added? == Added::Ready),
        () = shared.stop.cancelled() => {
            let text = "ended while the agent was being added".to_owned();
            let hint = format!("devsync detach {name} takes out what is there");
            reporter.event(&Event::Note { text, hint: Some(hint) });
            Ok(false)
        }
    }
}
