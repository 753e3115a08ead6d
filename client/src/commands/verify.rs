//! `devsync verify`: exit code 0 where the pod has what is here, 1 where it differs, 2 and above on trouble.

use std::path::Path;
use std::process::ExitCode;

use devsync_protocol::message::{Reply, Request, RootOptions};
use tokio::task::block_in_place;

use super::{Whom, say, say_json, whom};
use crate::app::App;
use crate::cli::{Output, VerifyArgs};
use crate::cluster::PodTarget;
use crate::config::Config;
use crate::connect::{Connected, Route, connect};
use crate::control::{self, Answer, Question};
use crate::engine::{Difference, local_tree};
use crate::error::CommandError;
use crate::installed;
use crate::project::Project;
use crate::report::count;
use crate::session::{Call, Handle};
use crate::settings;
use crate::verify::{Side, introduce, verify};

pub async fn run(args: &VerifyArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let explicit = !args.sync.is_empty() || args.exe.is_some();
    let differences = match whom(&args.target, &config, &project)? {
        Whom::Running(holder) if !explicit => match control::ask(&holder, &Question::Verify).await? {
            Answer::Verified { differences } => differences,
            other => return Err(control::failure(other)),
        },
        Whom::Running(_) => {
            return Err(CommandError::usage("the running attach knows what is synced where")
                .hint("leave --sync and --exe out"));
        }
        Whom::Target(route) => by_ourselves(&route.quiet(args.output.quiet), args, &config, &project).await?,
    };
    show(&differences, args)?;
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn show(differences: &[Difference], args: &VerifyArgs) -> Result<(), CommandError> {
    if args.output.output == Output::Json {
        return differences.iter().try_for_each(say_json);
    }
    if args.output.quiet {
        return Ok(());
    }
    for Difference { path, what } in differences {
        say(&format!("{path} {what}"))?;
    }
    match differences.len() {
        0 => say("the pod has what is here"),
        n => say(&count(n, "difference")),
    }
}

async fn by_ourselves(
    route: &Route,
    args: &VerifyArgs,
    config: &Config,
    project: &Path,
) -> Result<Vec<Difference>, CommandError> {
    let Connected { session, welcome, events: _events, pod } = connect(route).await?;
    let app = App::new(&welcome.target);
    let done = compare(&session.handle(), (&app, pod.as_ref()), args, config, project).await;
    session.close().await;
    done
}

async fn compare(
    handle: &Handle,
    (app, pod): (&App, Option<&PodTarget>),
    args: &VerifyArgs,
    config: &Config,
    project: &Path,
) -> Result<Vec<Difference>, CommandError> {
    let wishes = settings::wishes(&args.sync, args.exe.as_ref(), config, project).of_pod(pod);
    let found = block_in_place(|| Project::find(project));
    let plan = installed::decide(handle, app, &found, &wishes).await?;
    let excludes = [config.exclude.clone(), args.exclude.clone()].concat();
    let mut sides = Vec::new();
    for (root, mapping) in (0..).zip(plan.mappings) {
        let place = mapping.place.clone();
        let tree = block_in_place(|| local_tree(root, mapping, &excludes, project))?;
        let options = RootOptions { dry_run: true, ..RootOptions::default() };
        let open = Request::Open { root, place, options };
        let Reply::Opened { path, .. } = handle.call(Call::Open, &open).await? else { continue };
        let side = Side { root, place: Some(path), tree };
        introduce(handle, &side).await?;
        sides.push(side);
    }
    verify(handle, sides, plan.exe.as_deref()).await
}
