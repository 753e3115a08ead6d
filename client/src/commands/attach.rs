//! `devsync attach`: connects, decides what goes where, and runs the loop until it is ended.

use std::process::ExitCode;
use std::time::Duration;

use devsync_protocol::message::{AutoRestart, Reply, Request};
use devsync_protocol::restart::RestartMode;
use devsync_protocol::target::TargetReport;
use tokio::sync::mpsc;

use crate::app::{App, describe};
use crate::cli::AttachArgs;
use crate::cluster::{self, AddOptions, Added, Mark};
use crate::connect::{Connected, Route, connect};
use crate::control::{self, Desk, Holder, Seat};
use crate::engine::{Board, End, Engine, Job, clock};
use crate::error::CommandError;
use crate::mapping::{self, Plan};
use crate::project::Project;
use crate::report::{AppFacts, Event, Reporter};
use crate::rule::RestartRules;
use crate::session::{Call, Handle, Session};
use crate::settings::{self, Settings};
use crate::signals::Signals;

/// How long an orderly end may take.
const END_WITHIN: Duration = Duration::from_millis(900);
/// Questions that wait for the loop.
const QUESTIONS: usize = 16;

pub async fn run(args: &AttachArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project()?;
    let mut route = settings::route(&args.target, &config, &project).ok_or_else(|| {
        CommandError::usage("no target is named")
            .hint("devsync attach deploy/demo, or target = \"…\" in devsync.toml")
    })?;
    route.take_over = args.add.take_over;
    let allow_contexts = config.allow_contexts.clone();
    let settings = Settings::new(args, config, project)?;
    let mut signals = Signals::new()?;
    let (commands_tx, commands) = mpsc::channel(QUESTIONS);
    let desk = Desk::default();
    let holder = Holder {
        pid: std::process::id(),
        target: cluster::attached_to(&args.add, &route).name(),
        directory: settings.project.clone(),
        since: clock(),
    };
    let board = Board::new(&holder.target, &holder.since, &holder.directory);
    desk.join(Seat { name: holder.target.clone(), commands: commands_tx, board: board.clone() });
    // Looking on needs no claim, beside a running attach either.
    let _attached = match args.dry_run {
        true => None,
        false => Some(control::listen(&holder, desk.clone())?),
    };
    let mut reporter = Reporter::new(&args.output);
    if let Some(ended) = add_agent(args, &mut route, allow_contexts, &mut reporter, &mut signals).await? {
        return Ok(ended);
    }
    let Connected { session, welcome, events, pod } = tokio::select! {
        connected = connect(&route) => connected?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let marked = pod.as_ref().filter(|_| !args.dry_run);
    let mut say = |step| reporter.event(&super::detach::event(step));
    let mark = cluster::mark(&route.cluster, marked, route.take_over, &mut say).await;
    let handle = session.handle();
    let planned = tokio::select! {
        planned = plan(&settings, &handle, &welcome.target, args.yes) => Some(planned),
        () = signals.next() => None,
    };
    let (app, plan) = match planned {
        Some(Ok(planned)) => planned,
        other => {
            session.close().await;
            unmark(mark).await;
            return other.map_or(Ok(ExitCode::SUCCESS), |planned| planned.map(|_| ExitCode::SUCCESS));
        }
    };
    let job = job(args, settings, route, app, plan, &holder);
    let mut engine = Engine::new(job, session, events, commands, reporter, board);
    announce(&mut engine, &welcome.agent, &welcome.target, &welcome.auto);
    let ended = tokio::select! {
        ended = engine.run() => Some(ended),
        () = signals.next() => None,
    };
    let session = engine.close();
    let done = finish(engine, session, ended, signals).await;
    unmark(mark).await;
    done
}

/// Takes the pod's mark away, in the time that an end has.
async fn unmark(mark: Option<Mark>) {
    if let Some(mark) = mark {
        let _ = tokio::time::timeout(END_WITHIN, mark.remove()).await;
    }
}

/// Sees to it that a target in a cluster has an agent; an exit code where Ctrl-C ended that.
async fn add_agent(
    args: &AttachArgs,
    route: &mut Route,
    allow_contexts: Vec<String>,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<ExitCode>, CommandError> {
    let opts = AddOptions {
        args: args.add.clone(),
        yes: args.yes,
        overwrite: args.overwrite,
        dry_run: args.dry_run,
        allow_contexts,
    };
    let name = route.name();
    let mut say = |step| reporter.event(&super::detach::event(step));
    tokio::select! {
        added = cluster::ensure_agent(&route.cluster, &mut route.target, &opts, &mut say) => match added? {
            Added::Ready => Ok(None),
            Added::OnlySaid => Ok(Some(ExitCode::SUCCESS)),
        },
        () = signals.next() => {
            let text = "ended while the agent was being added".to_owned();
            let hint = format!("devsync detach {name} takes out what is there");
            reporter.event(&Event::Note { text, hint: Some(hint) });
            Ok(Some(ExitCode::SUCCESS))
        }
    }
}

/// Decides what goes where.
async fn plan(
    settings: &Settings,
    handle: &Handle,
    target: &TargetReport,
    yes: bool,
) -> Result<(App, Plan), CommandError> {
    let app = App::new(target);
    let project = tokio::task::block_in_place(|| Project::find(&settings.project));
    let has_loader = match mapping::loader(&app.machine) {
        None => true,
        Some(path) => match handle.call(Call::Exists, &Request::Exists { paths: vec![path] }).await? {
            Reply::Exists { found } => found.first().copied().unwrap_or(true),
            _ => true,
        },
    };
    let plan = mapping::decide(&app, &project, &settings.wishes, has_loader)?;
    if let Some(question) = plan.confirm.as_ref().filter(|_| !yes) {
        match crate::ask::confirm(question).await {
            Some(true) => {}
            Some(false) => return Err(CommandError::new("ended without syncing anything")),
            None => {
                let exe = plan.exe.as_ref().map(|e| e.display().to_string()).unwrap_or_default();
                return Err(CommandError::usage(question.clone())
                    .cause("nobody is here to answer, and names that differ may mean another program")
                    .hint(format!("if it is meant: --yes, or --exe {exe}")));
            }
        }
    }
    Ok((app, plan))
}

fn job(args: &AttachArgs, settings: Settings, route: Route, app: App, plan: Plan, holder: &Holder) -> Job {
    let Settings { project, excludes, options, rules, grace, .. } = settings;
    Job {
        target: holder.target.clone(),
        route,
        app,
        mappings: plan.mappings,
        excludes,
        options,
        rules: RestartRules::new(&rules, plan.restart),
        grace,
        build: plan.build,
        project,
        exe: plan.exe,
        guessed: plan.guessed,
        because: plan.because,
        once: args.once,
        yes: args.yes,
        since: holder.since.clone(),
    }
}

/// Says what was found and what will be done, before anything is written.
fn announce(engine: &mut Engine, agent: &str, report: &TargetReport, auto: &AutoRestart) {
    let job = engine.job();
    let app = &job.app;
    let facts = AppFacts {
        name: app.name(),
        pid: app.pid,
        exe: app.exe.as_ref().map(ToString::to_string),
        argv: app.argv.clone(),
        cwd: app.cwd.as_ref().map(ToString::to_string),
        uid: app.uid,
        gid: app.gid,
        machine: app.machine.clone(),
        lines: describe(report),
    };
    let mode = job.rules.otherwise();
    let restart = if *mode == RestartMode::Auto { auto.mode.clone() } else { mode.clone() };
    let cannot = *mode == RestartMode::Auto && auto.mode == RestartMode::None;
    let event = Event::Attached {
        target: job.target.clone(),
        app: facts,
        agent: agent.to_owned(),
        sync: engine.places(),
        restart: restart.to_string(),
        build: job.build.as_ref().map(crate::build::Build::words),
        because: job.because.clone(),
    };
    engine.reporter.event(&event);
    if cannot {
        engine.reporter.event(&Event::Note { text: auto.why.clone(), hint: auto.hint.clone() });
    }
}

/// Ends the session in order, within a second; a second Ctrl-C ends it at once.
async fn finish(
    mut engine: Engine,
    session: Option<Session>,
    ended: Option<Result<End, CommandError>>,
    mut signals: Signals,
) -> Result<ExitCode, CommandError> {
    let closing = async {
        if let Some(session) = session {
            session.close().await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(END_WITHIN, closing) => {}
        () = signals.next() => {}
    }
    match ended {
        Some(Err(error)) => {
            if engine.reporter.is_json() && !error.is_broken_pipe() {
                engine.reporter.error(&error);
            }
            Err(error)
        }
        Some(Ok(_)) => Ok(ExitCode::SUCCESS),
        None => {
            let name = engine.job().app.name();
            let reason = format!(
                "ended: {name} runs on with the files that it has; `devsync attach` goes on from there"
            );
            engine.reporter.event(&Event::Ended { reason });
            Ok(ExitCode::SUCCESS)
        }
    }
}
