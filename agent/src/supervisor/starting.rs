//! Starts the app, and holds when that fails.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use super::life::{App, End, Phase, Then};
use super::{Supervisor, copied};
use crate::sys::launch;

impl Supervisor {
    /// Starts the app; a failure is held like a crash.
    pub(super) fn start(&mut self) {
        self.out.finish(&mut self.ring);
        self.err.finish(&mut self.ring);
        self.ring.clear();
        self.starts = self.starts.saturating_add(1);
        self.note_first_start();
        match self.launch() {
            Ok(pid) => {
                self.app = Some(App { pid, since: Instant::now() });
                self.group = Some(pid);
                self.phase = Phase::Running;
                self.started(pid);
            }
            Err(error) => {
                self.end = Some(End::not_started(self.program(), &error));
                let then = if self.config.hold { Then::Hold } else { Then::BackOff };
                self.rest(then);
            }
        }
    }

    fn launch(&mut self) -> std::io::Result<i32> {
        let (out, err) = (self.out.for_app()?, self.err.for_app()?);
        let terminal = self.terminal.as_ref().and_then(|terminal| terminal.for_app());
        let program = match self.config.exec_copy.as_deref() {
            Some(dir) => copied::in_place_of(&self.config.argv, dir)?,
            None => None,
        };
        launch::start(program.as_deref(), &self.config.argv, out, err, terminal)
    }

    /// With `--wait`: as after a crash, the next request starts the app.
    pub(super) fn wait_for_first_sync(&mut self) {
        self.end = Some(End::first_sync());
        self.say(&format!("{} is not started before its first sync", self.program()));
    }

    /// An earlier container had its first sync, and what was synced is still there.
    pub(super) fn has_waited(&self) -> bool {
        self.config.waited.as_deref().is_some_and(Path::exists)
    }

    /// For the next container.
    fn note_first_start(&mut self) {
        let Some(file) = self.config.waited.clone().filter(|file| self.starts == 1 && !file.exists()) else {
            return;
        };
        if let Err(error) = File::create(&file) {
            self.say(&format!("another container will wait again: {}: {error}", file.display()));
        }
    }

    pub(super) fn program(&self) -> String {
        let name = self.config.argv.first().map(|name| name.to_string_lossy().into_owned());
        let mut name = name.unwrap_or_default();
        if name.len() > MAX_NAME {
            let end = (0..=MAX_NAME).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
            name.truncate(end);
        }
        name
    }

    /// Nothing runs now: says why, and waits for a request or for the back-off.
    pub(super) fn rest(&mut self, then: Then) {
        self.out.finish(&mut self.ring);
        self.err.finish(&mut self.ring);
        let now = Instant::now();
        let (what, ran) = match &self.end {
            Some(end) => (end.describe(&self.program()), end.ran),
            None => ("nothing was started".to_owned(), std::time::Duration::ZERO),
        };
        if then == Then::BackOff {
            let wait = self.back_off.next(ran);
            self.phase = Phase::BackOff { until: now + wait, since: now };
            self.say(&format!("{what}; starts again in {:.1} s", wait.as_secs_f64()));
        } else {
            self.phase = Phase::Held { since: now };
            self.say(&format!("{what}; held until the next restart"));
        }
        self.held();
    }
}

/// Longest program name sent and printed, in bytes.
const MAX_NAME: usize = 4096;
