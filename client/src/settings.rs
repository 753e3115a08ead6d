//! What an attach is to do: the command line over devsync.toml.

use std::path::{Path, PathBuf};
use std::time::Duration;

use devsync_protocol::message::RootOptions;

use crate::cli::{AttachArgs, ClusterArgs, SyncSpec, TargetArgs, TargetWord};
use crate::cluster::{Login, did_you_mean};
use crate::config::{self, Config};
use crate::connect::Route;
use crate::error::{CommandError, Kind};
use crate::mapping::Wishes;
use crate::on_change::OnChange;
use crate::rule::RestartRule;
use crate::transport::ssh::{Reverse, Seat};

/// How long an app may take to shut down where nobody says.
pub const GRACE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Settings {
    /// The directory of devsync.toml, else the current one.
    pub project: PathBuf,
    pub wishes: Wishes,
    pub excludes: Vec<String>,
    pub options: RootOptions,
    pub rules: Vec<RestartRule>,
    pub grace: Duration,
    pub on_change: Vec<OnChange>,
}

/// The project's devsync.toml, and its directory; of one of its targets, where that is what was named.
pub fn project_of(target: Option<&TargetWord>) -> Result<(Config, PathBuf), CommandError> {
    let (config, project) = project()?;
    let Some(TargetWord::Named(name)) = target else { return Ok((config, project)) };
    let each = config.each();
    let names: Vec<&str> = each.iter().map(|(name, _)| name.as_str()).collect();
    let unknown = || {
        let cause = match names.as_slice() {
            [] => "there are no targets in a devsync.toml here".to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        let hint = did_you_mean(name, &names, "")
            .unwrap_or_else(|| "a workload is named with its kind: deploy/demo".to_owned());
        CommandError::usage(format!("devsync.toml has no [targets.{name}]")).cause(cause).hint(hint)
    };
    let own = each.iter().find(|(own, _)| own == name).map(|(_, own)| own.clone()).ok_or_else(unknown)?;
    Ok((own, project))
}

/// The project's devsync.toml, and its directory.
pub fn project() -> Result<(Config, PathBuf), CommandError> {
    let here = std::env::current_dir()
        .and_then(std::fs::canonicalize)
        .map_err(|e| CommandError::new("the current directory cannot be read").cause(e))?;
    config::find(&here).map_err(|error| {
        CommandError::of(error).kind(Kind::Usage).hint("its keys are the options of `devsync attach --help`")
    })
}

/// The target that is named, on the command line or in devsync.toml.
pub fn route(args: &TargetArgs, config: &Config, project: &Path) -> Option<Route> {
    let selected = |selector: &Option<String>| selector.clone().map(TargetWord::Selector);
    // A name's settings are `config`, see `project_of`.
    let word = args.target.clone().filter(|word| !matches!(word, TargetWord::Named(_)));
    let given = word.or_else(|| selected(&args.cluster.selector));
    let target = given.or_else(|| config.target.clone()).or_else(|| selected(&config.selector))?;
    let in_project = |path: &PathBuf| project.join(path);
    let host_key = || {
        let key = config.host_key.clone()?;
        let file = project.join(&key);
        Some(if file.is_file() { file.to_string_lossy().into_owned() } else { key })
    };
    let own = &args.cluster;
    let cluster = ClusterArgs {
        namespace: own.namespace.clone().or_else(|| config.namespace.clone()),
        context: own.context.clone().or_else(|| config.context.clone()),
        container: own.container.clone().or_else(|| config.container.clone()),
        ..own.clone()
    };
    Some(Route {
        target,
        identity: args.identity.clone().or_else(|| config.identity.as_ref().map(in_project)),
        host_key: args.host_key.clone().or_else(host_key),
        cluster,
        login: Login::default(),
        take_over: false,
        seat: Seat::default(),
        reverse: Reverse::default(),
    })
}

/// As [`route`], for commands that cannot do without a target. `example`: the command with one, for the hint.
pub fn needed_route(
    args: &TargetArgs,
    config: &Config,
    project: &Path,
    example: &str,
) -> Result<Route, CommandError> {
    route(args, config, project).ok_or_else(|| {
        CommandError::usage("no target is named")
            .hint(format!("devsync {example}, or target = \"…\" in devsync.toml"))
    })
}

/// As [`needed_route`], for commands that need a cluster.
pub fn cluster_route(
    target: Option<&TargetWord>,
    cluster: &ClusterArgs,
    config: &Config,
    project: &Path,
    command: &str,
) -> Result<Route, CommandError> {
    let args = TargetArgs { target: target.cloned(), cluster: cluster.clone(), ..TargetArgs::default() };
    needed_route(&args, config, project, &format!("{command} deploy/demo"))
}

pub fn no_cluster(route: &Route, command: &str) -> CommandError {
    let target = &route.target;
    let hint = match (target, command) {
        (TargetWord::Container { engine, name }, "logs") => format!("{engine} logs {name}"),
        (TargetWord::Container { name, .. }, "port-forward") => {
            format!("devsync ssh-config {target} --install, then ssh -NL 8080:127.0.0.1:8080 {name}.devsync")
        }
        _ => format!("devsync {command} deploy/demo: a workload or a pod"),
    };
    CommandError::usage(format!("{target} is in no cluster")).hint(hint)
}

/// What is synced and where; the command line's list replaces that of the file.
pub fn wishes(sync: &[SyncSpec], exe: Option<&PathBuf>, config: &Config, project: &Path) -> Wishes {
    let in_project = |spec: &SyncSpec| SyncSpec { from: project.join(&spec.from), to: spec.to.clone() };
    let named = !sync.is_empty() || exe.is_some();
    Wishes {
        sync: if named { sync.to_vec() } else { config.sync.iter().map(in_project).collect() },
        exe: if named { exe.cloned() } else { config.exe.as_ref().map(|exe| project.join(exe)) },
        ..Wishes::default()
    }
}

impl Settings {
    pub fn new(args: &AttachArgs, config: Config, project: PathBuf) -> Result<Self, CommandError> {
        let mut wishes = wishes(&args.sync, args.exe.as_ref(), &config, &project);
        wishes.build = args.build.clone().or_else(|| config.build.clone());
        let excludes = [config.exclude, args.exclude.clone()].concat();
        let inplace = [config.inplace, args.inplace.clone()].concat();
        for (flag, glob) in
            excludes.iter().map(|g| ("--exclude", g)).chain(inplace.iter().map(|g| ("--inplace", g)))
        {
            if !crate::local::rules::is_usable_glob(glob) {
                return Err(CommandError::usage(format!("{flag} {glob:?} is no pattern")));
            }
        }
        let options = RootOptions {
            delete: args.delete || config.delete.unwrap_or(false),
            overwrite: args.overwrite || config.overwrite.unwrap_or(false),
            inplace,
            dry_run: args.dry_run,
        };
        let rules = if args.restart.is_empty() { config.restart.0 } else { args.restart.clone() };
        let grace = grace(args.grace.or(config.grace))?.unwrap_or(GRACE);
        let on_change = config.on_change;
        Ok(Self { project, wishes, excludes, options, rules, grace, on_change })
    }
}

/// Seconds as a user gives them.
pub fn grace(seconds: Option<f64>) -> Result<Option<Duration>, CommandError> {
    let Some(seconds) = seconds else { return Ok(None) };
    match Duration::try_from_secs_f64(seconds) {
        Ok(grace) if grace <= Duration::from_secs(3600) => Ok(Some(grace)),
        _ => Err(CommandError::usage(format!("--grace {seconds}: expected seconds from 0 to 3600"))),
    }
}
