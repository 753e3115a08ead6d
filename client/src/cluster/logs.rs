//! The app's log from every pod of a workload, line by line. Followed, new pods and restarted containers join in.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::AsyncBufReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::LogParams;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::target::{WorkloadRef, container_status};
use super::{Cluster, find, state};
use crate::error::{CommandError, Kind};

/// A longer line is cut in pieces.
const LONGEST_LINE: usize = 64 * 1024;
/// Lines that may wait for the terminal.
const WAITING_LINES: usize = 256;
/// Pods whose logs are read at once.
const MOST_PODS: usize = 50;

/// Which part of the log.
#[derive(Debug, Clone, Default)]
pub struct LogWish {
    pub follow: bool,
    /// The last lines only.
    pub tail: Option<i64>,
    pub since: Option<Duration>,
    /// Of the container before its last restart.
    pub previous: bool,
    pub timestamps: bool,
}

/// A line, and the pod it came from. Without its line end.
pub struct LogLine {
    pub pod: String,
    pub line: Vec<u8>,
}

/// The logs of a workload's pods.
pub struct Logs {
    cluster: Cluster,
    workload: WorkloadRef,
    wish: LogWish,
    lines: (mpsc::Sender<LogLine>, mpsc::Receiver<LogLine>),
    streams: JoinSet<Result<(), CommandError>>,
    /// Containers whose log is being read or was.
    seen: HashSet<(String, String)>,
    /// True once there was more than one pod.
    several: bool,
    version: find::Version,
}

impl Logs {
    pub async fn open(cluster: Cluster, workload: WorkloadRef, wish: LogWish) -> Result<Self, CommandError> {
        let lines = mpsc::channel(WAITING_LINES);
        let (streams, seen) = (JoinSet::new(), HashSet::new());
        let version = find::Version::default();
        let mut logs = Self { cluster, workload, wish, lines, streams, seen, several: false, version };
        let pods = logs.look().await?;
        match pods {
            0 => Err(CommandError::new(format!("{} has no pods", logs.workload))
                .kind(Kind::Cluster)
                .hint(format!("kubectl get pods {}", logs.cluster.flags))),
            _ => Ok(logs),
        }
    }

    /// True where lines need their pod's name.
    pub fn several(&self) -> bool {
        self.several
    }

    /// The next line; `None` at the end, which never comes when the log is followed.
    pub async fn next(&mut self) -> Result<Option<LogLine>, CommandError> {
        loop {
            if let Ok(line) = self.lines.1.try_recv() {
                return Ok(Some(line));
            }
            let follow = self.wish.follow;
            if self.streams.is_empty() && !follow {
                return Ok(None);
            }
            let change = find::next_change(&self.cluster, &self.workload, &self.version);
            tokio::select! {
                Some(line) = self.lines.1.recv() => return Ok(Some(line)),
                Some(ended) = self.streams.join_next() => {
                    if let Ok(Err(error)) = ended {
                        // One pod of several that goes is no reason to leave the others.
                        if !follow {
                            return Err(error);
                        }
                        tracing::debug!("{error}");
                    }
                    if follow {
                        self.look().await?;
                    }
                }
                () = change, if follow => { self.look().await?; }
            }
        }
    }

    /// Starts to read what is not read yet; gives the number of pods.
    async fn look(&mut self) -> Result<usize, CommandError> {
        let (pods, version) = find::all(&self.cluster, &self.workload).await?;
        self.version = version;
        let first = self.seen.is_empty();
        for pod in pods.iter().take(MOST_PODS) {
            let container = state::choose(pod, self.cluster.container.as_deref())?;
            let Some(id) = started(pod, &container) else {
                if first && pods.len() == 1 && !self.wish.follow {
                    return Err(not_started(pod, &container));
                }
                continue;
            };
            if !self.seen.insert((pod.name_any(), id)) {
                continue;
            }
            let params = LogParams {
                container: Some(container),
                follow: self.wish.follow,
                previous: self.wish.previous,
                timestamps: self.wish.timestamps,
                // A container that came later is read from its begin.
                tail_lines: self.wish.tail.filter(|_| first),
                since_seconds: self.wish.since.filter(|_| first).map(|s| s.as_secs().max(1).cast_signed()),
                ..LogParams::default()
            };
            let (cluster, lines) = (self.cluster.clone(), self.lines.0.clone());
            self.streams.spawn(read(cluster, pod.name_any(), params, lines));
        }
        let names: HashSet<&str> = self.seen.iter().map(|(pod, _)| pod.as_str()).collect();
        self.several |= names.len() > 1;
        Ok(pods.len())
    }
}

/// The id of the container, once it was started at least once.
fn started(pod: &Pod, container: &str) -> Option<String> {
    let status = container_status(pod, container)?;
    let state = status.state.as_ref()?;
    let ran = state.running.is_some() || state.terminated.is_some() || status.restart_count > 0;
    ran.then(|| status.container_id.clone().unwrap_or_default())
}

fn not_started(pod: &Pod, container: &str) -> CommandError {
    let state = container_status(pod, container).and_then(|status| status.state.as_ref()?.waiting.clone());
    let cause = state.and_then(|w| w.message.or(w.reason)).unwrap_or_else(|| "the pod is pending".to_owned());
    CommandError::new(format!("container {container} of pod/{} has not started yet", pod.name_any()))
        .kind(Kind::Cluster)
        .cause(cause)
        .hint("devsync logs -f waits for it")
}

async fn read(
    cluster: Cluster,
    pod: String,
    params: LogParams,
    lines: mpsc::Sender<LogLine>,
) -> Result<(), CommandError> {
    let doing = format!("the log of pod/{pod} cannot be read");
    let pods = cluster.pods();
    let stream = cluster.ask(&doing, pods.log_stream(&pod, &params)).await?;
    let mut stream = std::pin::pin!(stream);
    let mut line = Vec::new();
    loop {
        let chunk = stream.fill_buf().await;
        let chunk =
            chunk.map_err(|error| CommandError::new(doing.clone()).kind(Kind::Cluster).cause(error))?;
        if chunk.is_empty() {
            if !line.is_empty() {
                let _ = lines.send(LogLine { pod, line }).await;
            }
            return Ok(());
        }
        let end = chunk.iter().position(|b| *b == b'\n');
        let take = end.unwrap_or(chunk.len()).min(LONGEST_LINE.saturating_sub(line.len()));
        line.extend_from_slice(&chunk[..take]);
        let complete = end == Some(take);
        stream.consume_unpin(take + usize::from(complete));
        if complete || line.len() >= LONGEST_LINE {
            let line = std::mem::take(&mut line);
            if lines.send(LogLine { pod: pod.clone(), line }).await.is_err() {
                return Ok(());
            }
        }
    }
}
