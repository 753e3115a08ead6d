//! One target of an attach: connects, decides what goes where, and runs the loop until it is ended.

use std::time::{Duration, SystemTime};

use devsync_protocol::message::AutoRestart;
use devsync_protocol::restart::RestartMode;
use devsync_protocol::target::TargetReport;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::{App, describe};
use crate::build::SharedBuilds;
use crate::cli::AttachArgs;
use crate::cluster::{AddOptions, Marks, PodTarget, Step, WorkloadRef, candidates};
use crate::connect::{Connected, Route, connect};
use crate::control::{Desk, Seat};
use crate::engine::{Board, End, Engine, InCluster, Job};
use crate::error::CommandError;
use crate::installed;
use crate::mapping::Plan;
use crate::project::Project;
use crate::report::{AppFacts, Event, Reporter};
use crate::rule::RestartRules;
use crate::session::{Handle, Session};
use crate::settings::Settings;

/// How long an orderly end may take.
const END_WITHIN: Duration = Duration::from_millis(900);
/// How long the pod's mark may take to go, which is a few requests.
const UNMARK_WITHIN: Duration = Duration::from_secs(3);
/// Questions that wait for the loop.
const QUESTIONS: usize = 16;

/// What an attach has for all of its targets.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) once: bool,
    pub(super) yes: bool,
    pub(super) accept_deletes: bool,
    pub(super) builds: SharedBuilds,
    pub(super) began: SystemTime,
    /// When it began, for people.
    pub(super) since: String,
    /// Ends everything in order.
    pub(super) stop: CancellationToken,
    /// Ends it at once.
    pub(super) now: CancellationToken,
}

impl Shared {
    pub(super) fn new(args: &AttachArgs) -> Self {
        Self {
            once: args.once,
            yes: args.yes,
            accept_deletes: args.accept_deletes,
            builds: SharedBuilds::default(),
            began: SystemTime::now(),
            since: crate::engine::clock(),
            stop: CancellationToken::new(),
            now: CancellationToken::new(),
        }
    }

    /// The same, to be ended by itself too.
    pub(super) fn for_one(&self) -> Self {
        Self { stop: self.stop.child_token(), ..self.clone() }
    }
}

/// One target.
pub(super) struct One {
    /// What it is called among several.
    pub(super) name: String,
    pub(super) route: Route,
    pub(super) settings: Settings,
    /// How its pods get an agent.
    pub(super) add: AddOptions,
}

/// Keeps one target in step until it is told to stop, or cannot go on. Its state and its questions are at `desk`.
pub(super) async fn run(
    one: One,
    shared: Shared,
    desk: &Desk,
    reporter: Reporter,
) -> Result<(), CommandError> {
    let name = one.name.clone();
    let (commands_tx, commands) = mpsc::channel(QUESTIONS);
    let board = Board::new(&one.route.name(), &shared.since, &one.settings.project);
    desk.join(Seat { name: name.clone(), commands: commands_tx, board: board.clone() });
    let ended = attach(one, shared, commands, board, reporter).await;
    desk.leave(&name);
    ended
}

async fn attach(
    one: One,
    shared: Shared,
    commands: mpsc::Receiver<crate::engine::Command>,
    board: Board,
    mut reporter: Reporter,
) -> Result<(), CommandError> {
    let One { route, settings, add, .. } = one;
    let stop = shared.stop.clone();
    let Connected { session, welcome, events, pod } = tokio::select! {
        connected = connect(&route) => connected?,
        () = stop.cancelled() => return Ok(()),
    };
    for spec in &route.reverse.specs {
        let there = pod.as_ref().map_or_else(|| route.target.to_string(), ToString::to_string);
        reporter.event(&Event::Step { text: format!("port {} of {there} → {spec} here", spec.remote) });
    }
    if let Some(pod) = &pod {
        tokio::select! {
            () = say_if_mixed(&route, pod, &mut reporter) => {}
            () = stop.cancelled() => {}
        }
    }
    let marks = Marks::default();
    if let Some(pod) = pod.as_ref().filter(|_| !settings.options.dry_run) {
        tokio::select! {
            () = mark(&route, &marks, pod, &mut reporter) => {}
            () = stop.cancelled() => {}
        }
    }
    // Taken over once: who has it after us is not thrown out because a connection was cut.
    let route = Route { take_over: false, ..route };
    let handle = session.handle();
    let planned = tokio::select! {
        planned = plan(&settings, pod.as_ref(), &handle, &welcome.target, shared.yes) => Some(planned),
        () = stop.cancelled() => None,
    };
    let (app, plan) = match planned {
        Some(Ok(planned)) => planned,
        other => {
            session.close().await;
            unmark(&marks, &shared.now).await;
            return other.map_or(Ok(()), |planned| planned.map(drop));
        }
    };
    let in_cluster = pod.map(|pod| InCluster { pod, add, marks: marks.clone() });
    let job = job(&shared, settings, route, in_cluster, app, plan);
    let mut engine = Engine::new(job, session, events, commands, reporter, board);
    announce(&mut engine, &welcome.agent, &welcome.target, &welcome.auto);
    let ended = tokio::select! {
        ended = engine.run() => Some(ended),
        () = stop.cancelled() => None,
    };
    let session = engine.close();
    let done = finish(engine, session, ended, &shared.now).await;
    unmark(&marks, &shared.now).await;
    done
}

/// Says on the pod who is attached.
async fn mark(route: &Route, marks: &Marks, pod: &PodTarget, reporter: &mut Reporter) {
    // It was connected to a moment ago.
    let Ok(cluster) = route.cluster().await else { return };
    let mut say = |step: Step| reporter.event(&step.into());
    marks.follow(&cluster, pod, route.take_over, &mut say).await;
}

/// Takes the pod's mark away; an API server that does not answer is not waited for long.
async fn unmark(marks: &Marks, now: &CancellationToken) {
    tokio::select! {
        _ = tokio::time::timeout(UNMARK_WITHIN, marks.remove()) => {}
        () = now.cancelled() => {}
    }
}

/// Of several pods only one has the files that are saved here.
async fn say_if_mixed(route: &Route, pod: &PodTarget, reporter: &mut Reporter) {
    let Some(workload) = WorkloadRef::of(&route.target) else { return };
    let Ok(cluster) = route.cluster().await else { return };
    let found = candidates(&cluster, &workload, route.cluster.container.as_deref()).await;
    let count = found.map_or(0, |found| found.len());
    if count > 1 {
        reporter.event(&Event::Note {
            text: format!(
                "{workload} has {count} pods, and only {pod} gets what is saved here: answers through a Service \
                 are mixed"
            ),
            hint: Some("--all-pods keeps all of them in step".to_owned()),
        });
    }
}

/// Decides what goes where.
async fn plan(
    settings: &Settings,
    pod: Option<&PodTarget>,
    handle: &Handle,
    target: &TargetReport,
    yes: bool,
) -> Result<(App, Plan), CommandError> {
    let app = App::new(target);
    let project = tokio::task::block_in_place(|| Project::find(&settings.project));
    let wishes = settings.wishes.of_pod(pod);
    let plan = installed::decide(handle, &app, &project, &wishes).await?;
    if let Some(question) = plan.confirm.as_ref().filter(|_| !yes) {
        match crate::ask::confirm(question).await {
            Some(true) => {}
            Some(false) => return Err(CommandError::new("ended without syncing anything")),
            None => {
                let said = match &plan.exe {
                    Some(exe) => format!("--exe {}", exe.display()),
                    None => "--sync FROM:TO".to_owned(),
                };
                return Err(CommandError::usage(question.clone())
                    .cause("nobody is here to answer, and it may be another one that is meant")
                    .hint(format!("if it is meant: --yes, or {said}")));
            }
        }
    }
    Ok((app, plan))
}

fn job(
    shared: &Shared,
    settings: Settings,
    route: Route,
    in_cluster: Option<InCluster>,
    app: App,
    plan: Plan,
) -> Job {
    let Settings { project, excludes, options, rules, grace, on_change, .. } = settings;
    Job {
        target: route.name(),
        route,
        in_cluster,
        app,
        mappings: plan.mappings,
        excludes,
        options,
        rules: RestartRules::new(&rules, plan.restart),
        grace,
        on_change,
        build: plan.build,
        builds: shared.builds.clone(),
        began: shared.began,
        project,
        exe: plan.exe,
        guessed: plan.guessed,
        because: plan.because,
        once: shared.once,
        yes: shared.yes,
        accept_deletes: shared.accept_deletes,
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
        route: job.target.clone(),
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

/// Ends the session in order, within a second, or at once.
async fn finish(
    mut engine: Engine,
    session: Option<Session>,
    ended: Option<Result<End, CommandError>>,
    now: &CancellationToken,
) -> Result<(), CommandError> {
    let was_connected = session.is_some();
    let closing = async {
        if let Some(session) = session {
            session.close().await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(END_WITHIN, closing) => {}
        () = now.cancelled() => {}
    }
    match ended {
        Some(Err(error)) => {
            // Of several targets each failure is said where they come together.
            if engine.reporter.is_json() && !engine.reporter.is_one_of_several() && !error.is_broken_pipe() {
                engine.reporter.error(&error);
            }
            Err(error)
        }
        Some(Ok(_)) => Ok(()),
        None => {
            let name = engine.job().app.name();
            // Nobody changes a cluster by ending a program: the agent stays until it is taken out.
            let stays = match engine.job().route.target.is_in_cluster() {
                true => {
                    format!("; the agent stays, `devsync detach {}` takes it out", engine.job().route.name())
                }
                false => String::new(),
            };
            let reason = match was_connected {
                true => format!(
                    "ended: {name} runs on with the files that it has; `devsync attach` goes on from there{stays}"
                ),
                false => format!("ended while {name} was out of reach{stays}"),
            };
            engine.reporter.event(&Event::Ended { reason });
            Ok(())
        }
    }
}
