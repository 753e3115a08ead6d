//! Builds of an attach: started by changed sources, superseded by newer ones, never by their own outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Tree;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, block_in_place};

use super::halt::Halt;
use super::root::{Root, scan_error};
use super::{Engine, pace};
use crate::build::{Build, BuildError, Ended, SharedBuilds};
use crate::error::CommandError;
use crate::local::{Change, RuleOptions, Scanner, Timing, Watcher, platform};
use crate::mapping::Source;
use crate::report::{Event, ms};

/// Events of what a build wrote last come up to this long after its end.
const AFTERMATH: Duration = Duration::from_millis(300);
/// A file that changed with so many builds in a row is made by them.
const STREAK: u32 = 3;
/// Lines of a build's output that wait to be shown.
const LINES: usize = 256;

/// The sources of a project and the build that runs over them.
pub(super) struct Builds {
    build: Build,
    shared: SharedBuilds,
    scanner: Scanner,
    /// Kept for its life; its changes come by `changes`.
    _watcher: Watcher,
    changes: mpsc::Receiver<Change>,
    /// The sources as the last build saw them.
    sources: Tree,
    running: Option<Running>,
    /// Files that changed with several builds in a row: made by the build, so that they start none.
    outputs: BTreeSet<RelPath>,
    /// With how many builds in a row a file changed.
    streaks: BTreeMap<RelPath, u32>,
    /// The paths counted for the build at hand.
    counted: BTreeSet<RelPath>,
    /// When the last build ended.
    ended: Option<(Instant, SystemTime)>,
    failed: bool,
}

struct Running {
    task: JoinHandle<Ended>,
    lines: mpsc::Receiver<String>,
    since: Instant,
    first_event: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a build has to tell.
pub(super) enum News {
    Sources(Option<Change>),
    Line(String),
    Over(Ended),
}

/// The next news of the builds; waits for ever where there are none.
pub(super) async fn next(builds: &mut Option<Builds>) -> News {
    let Some(builds) = builds else { return std::future::pending().await };
    match &mut builds.running {
        Some(running) => tokio::select! {
            biased;
            Some(line) = running.lines.recv() => News::Line(line),
            over = &mut running.task => News::Over(joined(over)),
            change = builds.changes.recv() => News::Sources(change),
        },
        None => News::Sources(builds.changes.recv().await),
    }
}

fn joined(over: Result<Ended, tokio::task::JoinError>) -> Ended {
    over.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(Arc::new(BuildError::Start { command: "task".to_owned(), source }))
    })
}

impl Builds {
    fn open(
        build: Build,
        shared: SharedBuilds,
        project: &Path,
        outputs: &[PathBuf],
        excludes: &[String],
    ) -> Result<Self, CommandError> {
        let root = std::fs::canonicalize(project).unwrap_or_else(|_| project.to_owned());
        let mut excludes = excludes.to_vec();
        for output in outputs {
            let real = std::fs::canonicalize(output).unwrap_or_else(|_| output.clone());
            if let Ok(Some(path)) = platform::relative(&root, &real) {
                excludes.push(format!("/{}", escape_glob(&String::from_utf8_lossy(&path))));
            }
        }
        let options = RuleOptions { excludes, ..RuleOptions::default() };
        let mut scanner = Scanner::open(&root, options).map_err(scan_error)?;
        let rules = scanner.rules().clone();
        let (watcher, changes) =
            Watcher::start(scanner.root(), rules, Timing::default()).map_err(CommandError::of)?;
        let sources = scanner.scan().map_err(scan_error)?.tree;
        Ok(Self {
            build,
            shared,
            scanner,
            _watcher: watcher,
            changes,
            sources,
            running: None,
            outputs: BTreeSet::new(),
            streaks: BTreeMap::new(),
            counted: BTreeSet::new(),
            ended: None,
            failed: false,
        })
    }

    /// Asks for a build that begins after `changed`. One that began before is ended.
    fn start(&mut self, first_event: Instant, changed: SystemTime) {
        self.running = None;
        self.failed = false;
        self.counted.clear();
        let (tx, lines) = mpsc::channel(LINES);
        let (build, shared) = (self.build.clone(), self.shared.clone());
        let task = tokio::spawn(async move { shared.run(&build, changed, tx).await });
        self.running = Some(Running { task, lines, since: Instant::now(), first_event });
    }

    /// Takes in a change of the sources; `Some` where it asks for a build: when the last of them changed.
    fn take(&mut self, change: &Change) -> Result<Option<SystemTime>, CommandError> {
        let update = block_in_place(|| self.scanner.refresh(change, &self.sources)).map_err(scan_error)?;
        update.apply_to(&mut self.sources);
        let changed: BTreeSet<_> = update.changed.into_keys().chain(update.deleted).collect();
        let ended = self.ended.filter(|(at, _)| at.elapsed() < AFTERMATH);
        for path in &changed {
            let with_build = self.running.is_some()
                || ended.is_some_and(|(at, clock)| match self.changed_at(path) {
                    Some(changed) => changed <= clock,
                    None => change.first_event <= at,
                });
            if !with_build {
                // Somebody edits it: it is a source, whatever it looked like before.
                self.outputs.remove(path);
                self.streaks.remove(path);
            } else if self.counted.insert(path.clone()) {
                let streak = self.streaks.entry(path.clone()).or_default();
                *streak += 1;
                if *streak >= STREAK {
                    self.outputs.insert(path.clone());
                }
            }
        }
        // What is gone was changed by now at the latest.
        let times = changed.iter().filter(|path| !self.outputs.contains(*path));
        Ok(times.map(|path| self.changed_at(path).unwrap_or_else(SystemTime::now)).max())
    }

    /// When the file last changed, by the clock: what was saved after a build's end is none of its outputs,
    /// however soon it came.
    fn changed_at(&self, path: &RelPath) -> Option<SystemTime> {
        let meta = std::fs::symlink_metadata(platform::absolute(self.scanner.root(), Some(path))).ok()?;
        let ns = u64::try_from(platform::stamp(&meta).changed_ns()).ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns))
    }
}

fn escape_glob(text: &str) -> String {
    text.chars()
        .flat_map(|c| matches!(c, '*' | '?' | '[' | '\\').then_some('\\').into_iter().chain([c]))
        .collect()
}

impl Engine {
    /// Runs the build once before anything is compared. False where it failed, which was said.
    pub(super) async fn first_build(&mut self) -> Result<bool, Halt> {
        let Some(build) = self.job.build.clone() else { return Ok(true) };
        if self.job.options.dry_run {
            return Ok(true);
        }
        let files = self.job.mappings.iter().filter_map(|m| match &m.source {
            Source::File { path, .. } => Some(path.clone()),
            Source::Tree(_) => None,
        });
        let outputs: Vec<_> = files.collect();
        self.reporter.event(&Event::Building { command: build.words() });
        if self.job.once {
            return self.build_once(&build).await;
        }
        let (excludes, project) = (self.job.excludes.clone(), self.job.project.clone());
        let shared = self.job.builds.clone();
        let mut builds = block_in_place(|| Builds::open(build, shared, &project, &outputs, &excludes))?;
        builds.start(Instant::now(), self.job.began);
        self.builds = Some(builds);
        loop {
            match next(&mut self.builds).await {
                News::Over(result) => return Ok(self.build_over(result)),
                news => self.on_build(news).await?,
            }
        }
    }

    async fn build_once(&mut self, build: &Build) -> Result<bool, Halt> {
        let (tx, mut lines) = mpsc::channel(LINES);
        let since = Instant::now();
        let shared = self.job.builds.clone();
        let mut run = std::pin::pin!(shared.run(build, self.job.began, tx));
        let mut kept = Vec::new();
        let result = loop {
            tokio::select! {
                biased;
                Some(line) = lines.recv() => kept.push(line),
                result = &mut run => break result,
            }
        };
        while let Ok(line) = lines.try_recv() {
            kept.push(line);
        }
        kept.iter().for_each(|line| self.reporter.build_line(line));
        Ok(self.say_built(since, result))
    }

    fn say_built(&mut self, since: Instant, result: Ended) -> bool {
        match result {
            Ok(()) => {
                self.reporter.event(&Event::Built { ms: ms(since.elapsed()) });
                true
            }
            Err(error) => {
                self.reporter.build_failed();
                let command = self.job.build.as_ref().map(Build::words).unwrap_or_default();
                let source = std::error::Error::source(&*error).map(|s| format!(": {s}")).unwrap_or_default();
                self.reporter.event(&Event::BuildFailed { command, cause: format!("{error}{source}") });
                false
            }
        }
    }

    /// The build ended: says how; true where its result may be sent.
    fn build_over(&mut self, result: Ended) -> bool {
        let Some(builds) = &mut self.builds else { return false };
        let Some(mut running) = builds.running.take() else { return false };
        let mut rest = Vec::new();
        while let Ok(line) = running.lines.try_recv() {
            rest.push(line);
        }
        builds.failed = result.is_err();
        builds.ended = Some((Instant::now(), SystemTime::now()));
        let since = running.since;
        drop(running);
        rest.iter().for_each(|line| self.reporter.build_line(line));
        self.say_built(since, result)
    }

    pub(super) async fn on_build(&mut self, news: News) -> Result<(), Halt> {
        match news {
            News::Line(line) => self.reporter.build_line(&line),
            News::Sources(None) => {
                return Err(CommandError::new("the sources are not watched any more").into());
            }
            News::Sources(Some(change)) => {
                let Some(builds) = &mut self.builds else { return Ok(()) };
                if let Some(changed) = builds.take(&change)? {
                    builds.start(change.first_event, changed);
                    let command = builds.build.words();
                    self.reporter.event(&Event::Building { command });
                }
            }
            News::Over(result) => {
                let running = self.builds.as_ref().and_then(|b| b.running.as_ref());
                let first_event = running.map_or_else(Instant::now, |r| r.first_event);
                if self.build_over(result) {
                    self.after_build(first_event).await?;
                }
            }
        }
        Ok(())
    }

    /// Looks at everything that may have come of the build, and at what waited for it.
    async fn after_build(&mut self, first_event: Instant) -> Result<(), Halt> {
        self.held_back.clear();
        if !self.is_in_step() {
            return Ok(());
        }
        let all = (0..self.roots.len()).map(|index| (index, Change { first_event, ..pace::everything() }));
        let all: BTreeMap<_, _> = all.collect();
        self.save(all).await
    }

    /// Whether there is nothing that may be sent until a build succeeds.
    pub(super) fn waits_for_any_build(&self) -> bool {
        self.builds.as_ref().is_some_and(|builds| builds.running.is_some() || builds.failed)
    }

    /// Whether a root's change belongs to sources that are built first. Nothing is sent while a build runs or
    /// after one that failed.
    pub(super) fn waits_for_build(&self, index: usize, change: &Change) -> bool {
        let Some(builds) = &self.builds else { return false };
        if builds.running.is_some() || builds.failed {
            return true;
        }
        let root = &self.roots[index];
        change.rescan.is_some() || change.paths.iter().any(|path| is_source(builds, root, path))
    }
}

/// True for a file that counts as a source of the project, and that no build made.
fn is_source(builds: &Builds, root: &Root, path: &RelPath) -> bool {
    match platform::relative(builds.scanner.root(), &root.absolute(path)) {
        Ok(Some(path)) => {
            !builds.outputs.contains(&path) && !builds.scanner.rules().verdict(&path, false).is_hidden()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn saves_right_after_builds_start_builds() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("main.rs"), "0").expect("written");
        let build = Build::shell("true", dir.path());
        let mut builds = Builds::open(build, SharedBuilds::default(), dir.path(), &[], &[]).expect("opened");
        let path = RelPath::new("main.rs").expect("valid");
        let mut take = |save: u32, lag: Duration| {
            builds.counted.clear();
            std::fs::write(dir.path().join("main.rs"), format!("{save}")).expect("written");
            builds.ended = Some((Instant::now(), SystemTime::now() + lag - Duration::from_millis(50)));
            let change = Change { paths: [path.clone()].into(), ..pace::nothing(Instant::now()) };
            builds.take(&change).expect("taken in").is_some()
        };
        assert!((1..=2 * STREAK).all(|save| take(save, Duration::ZERO)), "saved after the end");
        let made: Vec<_> = (10..10 + STREAK).map(|save| take(save, Duration::from_secs(1))).collect();
        assert_eq!(made, [true, true, false], "made by the build");
    }

    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(escape_glob("a[1]*.so"), "a\\[1]\\*.so");
    }
}
