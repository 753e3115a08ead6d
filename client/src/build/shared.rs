//! One build for all targets of an attach: a build that began after a change counts for everybody who waits for that
//! change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Build, BuildError};

/// The kernel's file times lag behind its clock by up to a tick.
const LAG: Duration = Duration::from_millis(20);

/// How a build ended.
pub type Ended = Result<(), Arc<BuildError>>;

/// The builds of an attach, by their commands.
#[derive(Clone, Default)]
pub struct SharedBuilds(Arc<Mutex<Vec<Run>>>);

/// The newest run of one command.
struct Run {
    build: Build,
    began: SystemTime,
    /// `None` while it runs.
    ended: watch::Receiver<Option<Ended>>,
    task: JoinHandle<()>,
}

impl Drop for Run {
    fn drop(&mut self) {
        // Its processes end with it.
        self.task.abort();
    }
}

impl SharedBuilds {
    /// Runs `build`, unless a run of it began after `changed`: then that one's end is waited for. A run that began
    /// before is ended. Who starts a run gets its output. Dropping the future leaves the run to the others.
    pub async fn run(&self, build: &Build, changed: SystemTime, lines: mpsc::Sender<String>) -> Ended {
        let mut ended = self.join_or_start(build, changed, lines).await;
        loop {
            let result = ended.wait_for(Option::is_some).await.ok().and_then(|result| result.clone());
            if let Some(result) = result {
                return result;
            }
            // A newer run took its place, which began after our change too.
            let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match newest.iter().find(|run| run.build == *build) {
                Some(run) => ended = run.ended.clone(),
                None => return Err(Arc::new(BuildError::Ended { command: build.words() })),
            }
        }
    }

    async fn join_or_start(
        &self,
        build: &Build,
        changed: SystemTime,
        lines: mpsc::Sender<String>,
    ) -> watch::Receiver<Option<Ended>> {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = runs.iter().position(|run| run.build == *build);
        if let Some(run) = position.map(|at| &runs[at])
            && run.began >= changed + LAG
        {
            return run.ended.clone();
        }
        let old = position.map(|at| runs.swap_remove(at));
        let (end, ended) = watch::channel(None);
        let own = build.clone();
        let task = tokio::spawn(async move {
            if let Some(mut old) = old {
                // Two at a time would write the same files.
                old.task.abort();
                let _ = (&mut old.task).await;
            }
            let result = own.run(lines).await.map_err(Arc::new);
            end.send_replace(Some(result));
        });
        let began = SystemTime::now();
        runs.push(Run { build: build.clone(), began, ended: ended.clone(), task });
        ended
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_build_serves_all_who_wait_for_a_change() {
        let dir = tempfile::tempdir().expect("a directory");
        let build = Build::shell("echo x >> runs; while [ ! -e go ]; do sleep 0.01; done", dir.path());
        let builds = SharedBuilds::default();
        let changed = SystemTime::now() - Duration::from_secs(1);
        let runs = || std::fs::read_to_string(dir.path().join("runs")).unwrap_or_default().lines().count();
        let spawn = |changed| {
            let (builds, build) = (builds.clone(), build.clone());
            tokio::spawn(async move { builds.run(&build, changed, mpsc::channel(9).0).await })
        };
        let (one, other) = (spawn(changed), spawn(changed));
        while runs() == 0 {
            tokio::task::yield_now().await;
        }
        // A change after its beginning needs another run, whose end is that of the first ones too.
        let third = spawn(SystemTime::now());
        while runs() == 1 {
            tokio::task::yield_now().await;
        }
        std::fs::write(dir.path().join("go"), "").expect("written");
        for waiting in [one, other, third] {
            assert!(waiting.await.expect("joined").is_ok());
        }
        assert!(builds.run(&build, changed, mpsc::channel(9).0).await.is_ok());
        assert_eq!(runs(), 2);
    }
}
