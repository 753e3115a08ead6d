//! The life of the app: started, ended with all its descendants, held after a crash. Pure state and its transitions' reasons;
//! the loop in `supervisor` drives it.

use std::collections::HashSet;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::wire::Cause;

/// First wait of `--no-hold`, doubled after each crash up to the last; a run as long as `CALM` starts over.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
const CALM: Duration = Duration::from_secs(10);

/// The app's first process while it lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct App {
    /// Also the number of its process group.
    pub(crate) pid: i32,
    pub(crate) since: Instant,
}

#[derive(Debug)]
pub(crate) enum Phase {
    Running,
    Clearing(Clearing),
    Held { since: Instant },
    BackOff { until: Instant, since: Instant },
}

/// Processes are being ended; when none is left, `then` comes.
#[derive(Debug)]
pub(crate) struct Clearing {
    pub(crate) stage: Stage,
    pub(crate) then: Then,
    /// Inodes of the listening sockets that the old processes held.
    pub(crate) ports: HashSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// TERM was sent to the group; KILL comes when the group is empty or at this time.
    Term { until: Instant },
    /// KILL goes to every descendant again and again until none is left; given up at `until`. `from`: where the search for them
    /// goes on without /proc.
    Kill { next: Instant, until: Instant, from: i32 },
    /// All are gone; the kernel may still be closing their sockets (io_uring does so late).
    Ports { until: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Start,
    Hold,
    BackOff,
    Exit(u8),
}

/// How the last run ended, kept for status and for the final exit status.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) cause: Cause,
    pub(crate) ran: Duration,
}

impl End {
    pub(crate) fn of(status: ExitStatus, ran: Duration) -> Self {
        let cause = match status.signal() {
            Some(signal) => Cause::Signalled { signal, core: status.core_dumped() },
            None => Cause::Exited { code: status.code().unwrap_or_default() },
        };
        Self { cause, ran }
    }

    /// There was no run yet.
    pub(crate) fn first_sync() -> Self {
        Self { cause: Cause::FirstSync, ran: Duration::ZERO }
    }

    pub(crate) fn not_started(program: String, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self { cause: Cause::NotStarted { program, errno }, ran: Duration::ZERO }
    }

    /// What devsync-run itself exits with after this, as a shell would.
    pub(crate) fn exit_code(&self) -> u8 {
        match &self.cause {
            Cause::Exited { code } => *code as u8,
            Cause::Signalled { signal, .. } => 128_u8.wrapping_add(*signal as u8),
            Cause::NotStarted { errno, .. } if *errno == libc::ENOENT => 127,
            Cause::NotStarted { .. } => 126,
            Cause::Stuck { .. } | Cause::FirstSync => 1,
        }
    }

    /// Ended by the keyboard: by the signal itself, or by a program that turned it into its usual status.
    pub(crate) fn is_by_keyboard(&self) -> bool {
        match self.cause {
            Cause::Signalled { signal, .. } => signal == libc::SIGINT || signal == libc::SIGQUIT,
            Cause::Exited { code } => code == 128 + libc::SIGINT,
            _ => false,
        }
    }

    /// One line for a person.
    pub(crate) fn describe(&self, program: &str) -> String {
        let ran = self.ran.as_secs_f64();
        match &self.cause {
            Cause::Exited { code } => format!("{program} exited with status {code} after {ran:.1} s"),
            Cause::Signalled { signal, core } => {
                let dumped = if *core { ", core dumped" } else { "" };
                format!("{program} was ended by {} after {ran:.1} s{dumped}", signal_name(*signal))
            }
            Cause::NotStarted { program, errno } => {
                let hint = match *errno {
                    libc::ENOENT if std::path::Path::new(program).exists() => {
                        " (it exists: its interpreter or dynamic loader is what is missing)"
                    }
                    libc::ENOEXEC => {
                        " (an executable of another architecture, or a script without a #! line)"
                    }
                    _ => "",
                };
                format!("{program} cannot be started: {}{hint}", io::Error::from_raw_os_error(*errno))
            }
            Cause::Stuck { left } => {
                format!(
                    "{left} old processes of {program} did not end by SIGKILL, so it was not started again"
                )
            }
            Cause::FirstSync => format!("{program} was not started yet"),
        }
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// The waits of `--no-hold`.
#[derive(Default)]
pub(crate) struct BackOff(Option<Duration>);

impl BackOff {
    pub(crate) fn next(&mut self, ran: Duration) -> Duration {
        let (first, last) = BACK_OFF;
        let wait = match self.0 {
            Some(wait) if ran < CALM => (wait * 2).min(last),
            _ => first,
        };
        self.0 = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_to_its_limit_and_starts_over() {
        let mut back_off = BackOff::default();
        let waits: Vec<_> = (0..6).map(|_| back_off.next(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(back_off.next(CALM).as_millis(), 500);
    }

    #[test]
    fn exit_codes_are_a_shells() {
        let code = |cause| End { cause, ran: Duration::ZERO }.exit_code();
        assert_eq!(code(Cause::Exited { code: 3 }), 3);
        assert_eq!(code(Cause::Signalled { signal: 15, core: false }), 143);
        assert_eq!(code(Cause::NotStarted { program: "x".into(), errno: libc::ENOENT }), 127);
        assert_eq!(code(Cause::NotStarted { program: "x".into(), errno: libc::EACCES }), 126);
    }
}
