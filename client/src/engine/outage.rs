//! The time between two sessions: the old one is closed, then a new one is tried for, with pauses that grow.
//!
//! Runs beside the loop, which goes on watching, building and answering meanwhile.

use std::time::{Duration, Instant};

use devsync_protocol::message::{Reply, Request};
use devsync_protocol::path::PodPath;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::InCluster;
use crate::cluster::{Step, WorkloadRef, revive};
use crate::connect::{Connected, Route, connect};
use crate::error::CommandError;
use crate::session::{Call, Session, SessionError};

/// The first pause between two tries, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A session that lasted for so long was a good one: the pauses begin anew.
pub(super) const GOOD_AFTER: Duration = Duration::from_secs(10);
/// How long one try may take, beyond the limits that its parts have.
const TRY_WITHIN: Duration = Duration::from_secs(60);
/// The same where an agent has to be added first, whose image may have to be pulled.
const REVIVE_WITHIN: Duration = Duration::from_secs(200);
/// How long the new pod's mark may take, which is a few requests.
const MARK_WITHIN: Duration = Duration::from_secs(5);
/// What is told of a try and not yet taken.
const STEPS: usize = 16;
/// How long the old session's link may take to be closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// An agent that still takes us for connected holds the target for us; it must notice within this time.
const HELD_WITHIN: Duration = Duration::from_secs(90);

/// The pauses between tries.
#[derive(Debug, Clone)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    /// A session ended that had lasted for `lasted`.
    pub(super) fn after(&mut self, lasted: Duration) {
        if lasted >= GOOD_AFTER {
            *self = Self::default();
        }
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// A sync root that the new session opens before anything else.
pub(super) struct Opening {
    /// Its position among the roots.
    pub(super) index: usize,
    pub(super) request: Request,
}

/// A session with its sync roots open.
pub(super) struct Resumed {
    pub(super) connected: Connected,
    /// Where each of them lies, by its position, and what the agent had to say.
    pub(super) opened: Vec<(usize, PodPath, Vec<String>)>,
}

/// What a try does.
pub(super) struct Attempt {
    pub(super) route: Route,
    pub(super) openings: Vec<Opening>,
    /// For a target in a cluster.
    pub(super) in_cluster: Option<InCluster>,
    /// An agent may be added where none is left.
    pub(super) may_revive: bool,
}

/// A try that is under way.
struct Try {
    steps: mpsc::Receiver<News>,
    task: JoinHandle<Result<Resumed, Untaken>>,
}

enum Phase {
    Closing(JoinHandle<Option<String>>),
    Waiting(tokio::time::Instant),
    Trying(Try),
}

/// Why a try failed.
struct Untaken {
    error: CommandError,
    /// Another session holds the target, maybe our own last one.
    is_held: bool,
}

impl From<CommandError> for Untaken {
    fn from(error: CommandError) -> Self {
        Self { error, is_held: false }
    }
}

/// What came of a wait.
pub(super) enum News {
    /// The old session is closed: what the agent said last.
    Closed(Option<String>),
    /// A try is to be made now.
    Due,
    /// What is done in the cluster meanwhile.
    Step(Step),
    /// An agent was added.
    Revived,
    Resumed(Box<Resumed>),
    /// The try failed, and another one may do better.
    Failed(CommandError),
    /// Trying again does not help.
    Final(CommandError),
}

pub(super) struct Outage {
    pub(super) since: Instant,
    pub(super) cause: SessionError,
    /// How often it was tried.
    pub(super) attempt: u32,
    phase: Phase,
    backoff: Backoff,
    held_since: Option<Instant>,
}

impl Drop for Outage {
    fn drop(&mut self) {
        match &self.phase {
            // A session that is being closed is not waited for: its process ends with its handle.
            Phase::Closing(task) => task.abort(),
            Phase::Trying(tried) => tried.task.abort(),
            Phase::Waiting(_) => {}
        }
    }
}

impl Outage {
    pub(super) fn new(cause: SessionError, session: Option<Session>, backoff: Backoff) -> Self {
        let closing = tokio::spawn(async move {
            match session {
                Some(session) => timeout(CLOSE_WITHIN, session.close()).await.unwrap_or_default(),
                None => None,
            }
        });
        let phase = Phase::Closing(closing);
        Self { since: Instant::now(), cause, attempt: 0, phase, backoff, held_since: None }
    }

    /// The next news. May be dropped at any await.
    pub(super) async fn next(&mut self) -> News {
        match &mut self.phase {
            Phase::Closing(closing) => {
                let said = closing.await.unwrap_or_default();
                News::Closed(said)
            }
            Phase::Waiting(until) => {
                tokio::time::sleep_until(*until).await;
                News::Due
            }
            Phase::Trying(Try { steps, task }) => {
                // Closed when the task is over.
                if let Some(news) = steps.recv().await {
                    return news;
                }
                let tried = task.await.unwrap_or_else(|error| {
                    Err(CommandError::new("the connection could not be tried").cause(error).into())
                });
                self.judge(tried)
            }
        }
    }

    fn judge(&mut self, tried: Result<Resumed, Untaken>) -> News {
        let Untaken { error, is_held } = match tried {
            Ok(resumed) => return News::Resumed(Box::new(resumed)),
            Err(untaken) => untaken,
        };
        let held_since = *self.held_since.get_or_insert_with(Instant::now);
        if !is_held {
            self.held_since = None;
        }
        let held_too_long = is_held && held_since.elapsed() > HELD_WITHIN;
        if held_too_long || error.is_lasting() { News::Final(error) } else { News::Failed(error) }
    }

    /// Waits before the next try; gives for how long.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.backoff.next();
        self.attempt += 1;
        self.phase = Phase::Waiting(tokio::time::Instant::now() + pause);
        pause
    }

    /// Connects and opens the sync roots.
    pub(super) fn try_now(&mut self, attempt: Attempt) {
        let (news, steps) = mpsc::channel(STEPS);
        let within = if attempt.may_revive { REVIVE_WITHIN } else { TRY_WITHIN };
        let task = tokio::spawn(async move {
            let tried = timeout(within, resume(&attempt, news)).await;
            let tried = tried.unwrap_or_else(|_| {
                let seconds = within.as_secs();
                Err(CommandError::new(format!("there was no connection within {seconds} s")).into())
            });
            if tried.is_err() {
                attempt.route.login.doubt().await;
            }
            tried
        });
        self.phase = Phase::Trying(Try { steps, task });
    }

    /// When it will be tried again; `None` while it is tried.
    pub(super) fn next_try(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting(until) => Some((*until).into_std()),
            Phase::Closing(_) | Phase::Trying(_) => None,
        }
    }

    pub(super) fn backoff(&self) -> Backoff {
        self.backoff.clone()
    }
}

async fn resume(attempt: &Attempt, news: mpsc::Sender<News>) -> Result<Resumed, Untaken> {
    let Attempt { route, openings, in_cluster, may_revive } = attempt;
    // The last of them are dropped where nobody takes them quickly enough.
    let mut say = |step| drop(news.try_send(News::Step(step)));
    if let (Some(InCluster { add, .. }), Some(workload), true) =
        (in_cluster, WorkloadRef::of(&route.target), *may_revive)
        && revive(&route.cluster().await?, &workload, add, &mut say).await?
    {
        let _ = news.send(News::Revived).await;
    }
    let connected = connect(route).await?;
    let opened = match open(&connected, openings).await {
        Ok(opened) => opened,
        Err(untaken) => {
            connected.session.close().await;
            return Err(untaken);
        }
    };
    if let (Some(InCluster { marks, .. }), Some(pod)) = (in_cluster, &connected.pod)
        && let Ok(cluster) = route.cluster().await
    {
        let _ = timeout(MARK_WITHIN, marks.follow(&cluster, pod, false, &mut say)).await;
    }
    Ok(Resumed { connected, opened })
}

async fn open(
    connected: &Connected,
    openings: &[Opening],
) -> Result<Vec<(usize, PodPath, Vec<String>)>, Untaken> {
    let handle = connected.session.handle();
    let mut opened = Vec::new();
    for Opening { index, request } in openings {
        match handle.call(Call::Open, request).await {
            Ok(Reply::Opened { path, notes, .. }) => opened.push((*index, path, notes)),
            Ok(_) => {
                let error = SessionError::Unexpected { call: "open", reply: "something else" };
                return Err(CommandError::from(error).into());
            }
            Err(error) => {
                let is_held = matches!(&error, SessionError::Refused(refusal) if refusal.fatal);
                return Err(Untaken { error: error.into(), is_held });
            }
        }
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_begin_anew_after_a_good_session() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..7).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.after(Duration::from_secs(1));
        assert_eq!(backoff.next(), LONGEST_PAUSE);
        backoff.after(GOOD_AFTER);
        assert_eq!(backoff.next(), FIRST_PAUSE);
    }
}
