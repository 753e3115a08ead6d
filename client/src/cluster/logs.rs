//! The app's log from every pod of a workload, line by line. Followed, new pods and restarted containers join in.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::AsyncBufReadExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::LogParams;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::target::{WorkloadRef, container_status};
use super::{Cluster, find, state};
use crate::error::{CommandError, Kind};

/// A longer line is cut in pieces.
const LONGEST_LINE: usize = 64 * 1024;
/// Lines that may wait for the terminal.
const WAITING_LINES: usize = 256;
/// Pods whose logs are read at once.
const MOST_PODS: usize = 50;
/// Before an API server or a pod is asked again.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// Resolves at the next change of the pods, while the log is followed: one watch, however many lines come meanwhile.
    change: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Logs {
    pub async fn open(cluster: Cluster, workload: WorkloadRef, wish: LogWish) -> Result<Self, CommandError> {
        let lines = mpsc::channel(WAITING_LINES);
        let (streams, seen) = (JoinSet::new(), HashSet::new());
        let change = Box::pin(std::future::pending());
        let mut logs = Self { cluster, workload, wish, lines, streams, seen, several: false, change };
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
            tokio::select! {
                Some(line) = self.lines.1.recv() => return Ok(Some(line)),
                Some(ended) = self.streams.join_next() => {
                    if let Ok(Err(error)) = ended {
                        // One pod of several that goes is no reason to leave the others.
                        if !follow || self.seen.len() == 1 {
                            return Err(error);
                        }
                        tracing::debug!("{error}");
                    }
                    if follow {
                        self.look_again().await;
                    }
                }
                () = &mut self.change, if follow => { self.look_again().await; }
            }
        }
    }

    /// While the log is followed, an API server that does not answer is asked again after a while.
    async fn look_again(&mut self) {
        if let Err(error) = self.look().await {
            tracing::debug!("{error}");
            self.change = Box::pin(sleep(PAUSE));
        }
    }

    /// Starts to read what is not read yet; gives the number of pods.
    async fn look(&mut self) -> Result<usize, CommandError> {
        self.cluster = self.cluster.fresh().await;
        let (pods, version) = find::all(&self.cluster, &self.workload).await?;
        if self.wish.follow {
            let (cluster, workload) = (self.cluster.clone(), self.workload.clone());
            self.change = Box::pin(async move { find::next_change(&cluster, &workload, &version).await });
        }
        let first = self.seen.is_empty();
        for pod in pods.iter().take(MOST_PODS) {
            let container = state::choose(pod, self.cluster.container.as_deref())?;
            let Some(id) = started(pod, &container) else {
                if first && pods.len() == 1 && !self.wish.follow {
                    return Err(not_started(pod, &container));
                }
                continue;
            };
            if !self.seen.insert((pod.name_any(), id.clone())) {
                continue;
            }
            let params = LogParams {
                container: Some(container.clone()),
                follow: self.wish.follow,
                previous: self.wish.previous,
                // By these a stream that was cut goes on where it was.
                timestamps: self.wish.timestamps || self.wish.follow,
                // A container that came later is read from its begin.
                tail_lines: self.wish.tail.filter(|_| first),
                since_seconds: self.wish.since.filter(|_| first).map(|s| s.as_secs().max(1).cast_signed()),
                ..LogParams::default()
            };
            let stream = Stream {
                cluster: self.cluster.clone(),
                pod: pod.name_any(),
                container,
                id,
                params,
                shows_time: self.wish.timestamps,
                last: None,
                lines: self.lines.0.clone(),
            };
            self.streams.spawn(stream.read());
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

/// The log of one container.
struct Stream {
    cluster: Cluster,
    pod: String,
    container: String,
    id: String,
    params: LogParams,
    /// The user wants to see the time of each line.
    shows_time: bool,
    /// The time of the last line that was passed on.
    last: Option<Timestamp>,
    lines: mpsc::Sender<LogLine>,
}

impl Stream {
    /// Reads to the end; followed, that is the end of the container, and a stream that was cut is opened again.
    async fn read(mut self) -> Result<(), CommandError> {
        loop {
            let ended = self.once().await;
            // What fails at once, before a line, is refused: it would be again.
            if !self.params.follow || ended.is_err() && self.last.is_none() {
                return ended.map(drop);
            }
            let reader_is_gone = matches!(ended, Ok(false));
            if reader_is_gone || !self.runs_on().await {
                return Ok(());
            }
            self.params.since_time = self.last;
            if self.last.is_some() {
                (self.params.tail_lines, self.params.since_seconds) = (None, None);
            }
        }
    }

    /// Whether the container still runs; asked after a pause, until there is an answer.
    async fn runs_on(&self) -> bool {
        loop {
            sleep(PAUSE).await;
            match self.cluster.ask("the pod cannot be read", self.cluster.pods().get_opt(&self.pod)).await {
                Ok(pod) => {
                    let status = pod.as_ref().and_then(|pod| container_status(pod, &self.container));
                    let running =
                        |s: &&ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some());
                    let id = status.filter(running).and_then(|status| status.container_id.as_ref());
                    return id == Some(&self.id);
                }
                Err(error) => tracing::debug!("{error}"),
            }
        }
    }

    /// Reads one stream to its end; false where nobody wants the lines any more.
    async fn once(&mut self) -> Result<bool, CommandError> {
        let doing = format!("the log of pod/{} cannot be read", self.pod);
        let pods = self.cluster.pods();
        let stream = self.cluster.ask(&doing, pods.log_stream(&self.pod, &self.params)).await?;
        let mut stream = std::pin::pin!(stream);
        let (mut line, mut is_rest) = (Vec::new(), false);
        loop {
            let chunk = stream.fill_buf().await;
            let chunk =
                chunk.map_err(|error| CommandError::new(doing.clone()).kind(Kind::Cluster).cause(error))?;
            if chunk.is_empty() {
                return Ok(line.is_empty() || self.pass(line, is_rest).await);
            }
            let end = chunk.iter().position(|b| *b == b'\n');
            let take = end.unwrap_or(chunk.len()).min(LONGEST_LINE.saturating_sub(line.len()));
            line.extend_from_slice(&chunk[..take]);
            let complete = end == Some(take);
            stream.consume_unpin(take + usize::from(complete));
            if complete || line.len() >= LONGEST_LINE {
                if !self.pass(std::mem::take(&mut line), is_rest).await {
                    return Ok(false);
                }
                is_rest = !complete;
            }
        }
    }

    /// Passes a line on, or the rest of one that was too long; false where nobody wants it.
    async fn pass(&mut self, mut line: Vec<u8>, is_rest: bool) -> bool {
        if self.params.timestamps && !is_rest {
            let (time, text) = split_time(&line);
            // The server's precision for where to begin is a second.
            if time.is_some() && time <= self.last && self.params.since_time.is_some() {
                return true;
            }
            self.last = time.or(self.last);
            if !self.shows_time {
                line = text.to_vec();
            }
        }
        self.lines.send(LogLine { pod: self.pod.clone(), line }).await.is_ok()
    }
}

/// `2026-01-01T00:00:00.000000000Z text`, as kubelet writes it.
fn split_time(line: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let at = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let time = std::str::from_utf8(&line[..at]).ok().and_then(|time| time.parse().ok());
    match time {
        Some(time) => (Some(time), line.get(at + 1..).unwrap_or_default()),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parted_from_its_time() {
        let (time, text) = split_time(b"2026-01-01T00:00:00.000000001Z hello world");
        assert_eq!((time.map(|t| t.as_nanosecond() % 1000), text), (Some(1), &b"hello world"[..]));
        let (later, text) = split_time(b"2026-01-01T01:00:00.5+01:00");
        assert!(later > time && text.is_empty());
        assert_eq!(split_time(b"unable to retrieve logs"), (None, &b"unable to retrieve logs"[..]));
    }
}
