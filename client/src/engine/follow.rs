//! What the loop does when its session is lost, and when there is another one.

use std::time::{Duration, Instant};

use devsync_protocol::message::{Request, RootId};
use devsync_protocol::path::PodPath;

use super::Engine;
use super::halt::Halt;
use super::outage::{Attempt, GOOD_AFTER, News, Opening, Outage, Resumed};
use crate::app::App;
use crate::cli::TargetWord;
use crate::connect::Connected;
use crate::error::CommandError;
use crate::report::{Event, ms};
use crate::session::{SessionError, with_last_words};

/// How long `--once` tries for another session.
const ONCE_WITHIN: Duration = Duration::from_secs(15);
/// A cause that changed is said from this try on: before, everything is still coming up.
const SAY_FROM: u32 = 4;
/// Agents that are added in a row: each that ends stays in the pod's spec, and an app that ends at once ends its agent.
const MOST_REVIVED: u32 = 3;

/// Whether there is a session.
pub(super) enum Link {
    Up { since: Instant },
    Down(Box<Outage>),
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// News of the outage; waits for ever where there is none.
    pub(super) async fn news(&mut self) -> News {
        match self {
            Self::Up { .. } => std::future::pending().await,
            Self::Down(outage) => outage.next().await,
        }
    }
}

impl Engine {
    /// The session is lost: from now on another one is tried for, unless that cannot help.
    pub(super) fn lose(&mut self, cause: SessionError) -> Result<(), CommandError> {
        let is_gone = matches!(cause, SessionError::Gone { .. });
        if is_gone && matches!(self.job.route.target, TargetWord::Pid(_)) {
            // A process id does not come back.
            return Err(cause.into());
        }
        if let Link::Up { since } = &self.link {
            let lasted = since.elapsed();
            self.backoff.after(lasted);
            if lasted >= GOOD_AFTER {
                self.revived = 0;
            }
        }
        self.stale = true;
        self.board.add_traffic(&self.handle);
        for ((index, path), node) in self.sender.take_unacknowledged() {
            self.lost.insert((index, path), node);
        }
        let session = self.session.take();
        self.link = Link::Down(Box::new(Outage::new(cause, session, self.backoff.clone())));
        self.restarts.lose(is_gone, &self.away());
        self.chores.lose();
        self.reporter.end_line();
        self.publish();
        Ok(())
    }

    /// Why nothing can be asked of the pod now.
    pub(super) fn away(&self) -> CommandError {
        let target = &self.job.target;
        let Link::Down(outage) = &self.link else {
            return CommandError::new(format!("{target} is being synced anew"));
        };
        let seconds = outage.since.elapsed().as_secs();
        let cause = CommandError::from(outage.cause.clone()).line();
        CommandError::new(format!("{target} is disconnected, for {seconds} s now"))
            .cause(cause)
            .hint("the attach goes on trying; `devsync status` says how it does")
    }

    pub(super) async fn on_link(&mut self, news: News) -> Result<(), Halt> {
        match news {
            News::Closed(said) => self.disconnected(said),
            News::Due => {
                let attempt = self.attempt();
                if let Link::Down(outage) = &mut self.link {
                    outage.try_now(attempt);
                }
            }
            News::Step(step) => self.reporter.event(&step.into()),
            News::Revived => self.revived += 1,
            News::Failed(error) => self.not_yet(error)?,
            News::Final(error) => return Err(error.into()),
            News::Resumed(resumed) => self.resume(*resumed).await?,
        }
        self.publish();
        Ok(())
    }

    fn disconnected(&mut self, said: Option<String>) {
        let Link::Down(outage) = &mut self.link else { return };
        outage.cause = with_last_words(outage.cause.clone(), said);
        let cause = CommandError::from(outage.cause.clone()).line();
        let in_ms = ms(outage.pause());
        self.reporter.event(&Event::Disconnected { cause });
        self.reporter.event(&Event::Reconnecting { attempt: 1, in_ms, cause: None });
    }

    /// A try failed: the next one follows, unless there was time enough.
    fn not_yet(&mut self, error: CommandError) -> Result<(), CommandError> {
        let Link::Down(outage) = &mut self.link else { return Ok(()) };
        if self.job.once && outage.since.elapsed() > ONCE_WITHIN {
            return Err(error);
        }
        let in_ms = ms(outage.pause());
        let attempt = outage.attempt;
        let cause = error.line();
        let is_news = attempt >= SAY_FROM && self.said_cause.as_ref() != Some(&cause);
        if is_news {
            let hint = error.get_hint().map(str::to_owned);
            self.reporter.event(&Event::Note { text: format!("still trying: {cause}"), hint });
            self.said_cause = Some(cause.clone());
        }
        self.reporter.event(&Event::Reconnecting { attempt, in_ms, cause: Some(cause) });
        Ok(())
    }

    fn attempt(&mut self) -> Attempt {
        let in_cluster = self.job.in_cluster.clone();
        let was_ephemeral = in_cluster.as_ref().is_some_and(|it| it.pod.is_agent_ephemeral());
        let may_revive = was_ephemeral && self.revived < MOST_REVIVED;
        Attempt { route: self.job.route.clone(), openings: self.openings(), in_cluster, may_revive }
    }

    /// The requests that open the sync roots in a new session.
    fn openings(&mut self) -> Vec<Opening> {
        let mut openings = Vec::new();
        for (index, root) in self.roots.iter_mut().enumerate() {
            root.id = RootId::try_from(index).unwrap_or(RootId::MAX);
            if root.place.is_none() {
                // Its place was not found yet.
                continue;
            }
            let options = root.options(&self.job.options);
            let request = Request::Open { root: root.id, place: root.mapping.place.clone(), options };
            openings.push(Opening { index, request });
        }
        self.next_root = RootId::try_from(self.roots.len()).unwrap_or(RootId::MAX);
        openings
    }

    async fn resume(&mut self, resumed: Resumed) -> Result<(), Halt> {
        let Resumed { connected, opened } = resumed;
        let Connected { session, welcome, events, pod } = connected;
        let app = App::new(&welcome.target);
        if matches!(self.job.route.target, TargetWord::Pid(_))
            && (&app.exe, app.uid) != (&self.job.app.exe, self.job.app.uid)
        {
            session.close().await;
            let (was, is) = (self.job.app.name(), app.name());
            return Err(CommandError::new(format!("{} is another process now", self.job.target))
                .cause(format!("it was {was}, and is {is}"))
                .hint("attach to the process that the app has now")
                .into());
        }
        for (index, path, _) in &opened {
            if let Err(error) = self.is_where_it_was(*index, path) {
                session.close().await;
                return Err(error.into());
            }
        }
        if let (Some(in_cluster), Some(pod)) = (&mut self.job.in_cluster, pod) {
            in_cluster.pod = pod;
        }
        let outage = match std::mem::replace(&mut self.link, Link::Up { since: Instant::now() }) {
            Link::Down(outage) => outage,
            Link::Up { .. } => return Ok(()),
        };
        self.backoff = outage.backoff();
        self.said_cause = None;
        self.handle = session.handle();
        self.sender.handle = session.handle();
        self.session = Some(session);
        self.events = events;
        self.restarts.app_is(app.name());
        self.job.app = app;
        let (pid, app) = (self.job.app.pid, self.job.app.name());
        self.reporter.event(&Event::Reconnected { app, pid, ms: ms(outage.since.elapsed()) });
        for (index, path, notes) in opened {
            for text in notes {
                self.reporter.event(&Event::Note { text, hint: None });
            }
            if let Some(root) = self.roots.get_mut(index) {
                root.place = Some(path);
                root.forget_pod();
            }
        }
        Ok(())
    }

    /// Refuses a sync root that the new session found elsewhere.
    fn is_where_it_was(&self, index: usize, path: &PodPath) -> Result<(), CommandError> {
        let was = self.roots.get(index).and_then(|root| root.place.as_ref());
        match was.filter(|was| *was != path) {
            None => Ok(()),
            Some(was) => Err(CommandError::new(format!("{was} was synced, and now it would be {path}"))
                .cause("the app has another working directory than before")
                .hint(format!("attach again, or say the place: --sync FROM:{was}"))),
        }
    }
}
