//! A signal by name to exactly one process: the restart of apps that reload by themselves.

use std::io;

use devsync_protocol::restart::SignalName;
use nix::errno::Errno;

use crate::sys::pidfd::PidFd;
use crate::sys::proc_task;

/// Why no signal was sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The name is none of this system's.
    #[error("there is no signal {0}")]
    Unknown(SignalName),
    /// The process is gone; its number may be another's.
    #[error("process {0} has ended")]
    Gone(i32),
    /// The kernel refused.
    #[error("cannot send {signal} to process {pid}")]
    Send {
        /// Which signal.
        signal: SignalName,
        /// To whom.
        pid: i32,
        /// Why.
        source: io::Error,
    },
}

/// Sends a signal to the process of this number and start time, and to no other.
pub fn send(pid: i32, start_time: u64, signal: &SignalName) -> Result<(), SignalError> {
    let number = number(signal).ok_or_else(|| SignalError::Unknown(signal.clone()))?;
    let failed = |errno: Errno| match errno {
        Errno::ESRCH => SignalError::Gone(pid),
        errno => SignalError::Send { signal: signal.clone(), pid, source: errno.into() },
    };
    let pidfd = PidFd::open(pid.cast_unsigned()).map_err(failed)?;
    // Asked after the descriptor was made: it is of that process or of none.
    if proc_task::start_time(pid).ok() != Some(start_time) {
        return Err(SignalError::Gone(pid));
    }
    pidfd.send_signal(number).map_err(failed)
}

/// The number of a signal of this system, real-time signals as `RTMIN+3` and `RTMAX-1` too.
pub fn number(signal: &SignalName) -> Option<i32> {
    let name = signal.as_str();
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return real_time(libc::SIGRTMIN(), offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return real_time(libc::SIGRTMAX(), offset);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

fn real_time(base: i32, offset: &str) -> Option<i32> {
    let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
    let number = base.checked_add(offset)?;
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<i32> {
        number(&text.parse().expect("is a name"))
    }

    #[test]
    fn names_and_numbers_mean_the_same() {
        assert_eq!(named("HUP"), Some(1));
        assert_eq!(named("sigusr2"), Some(libc::SIGUSR2));
        assert_eq!(named("15"), Some(15));
        assert_eq!(named("RTMIN+3"), Some(libc::SIGRTMIN() + 3));
        assert_eq!(named("RTMAX+1"), None);
        assert_eq!(named("HUPP"), None);
    }

    #[test]
    fn another_process_of_the_same_number_gets_nothing() {
        let pid = std::process::id() as i32;
        let name = "KILL".parse().expect("is a name");
        assert!(matches!(send(pid, 0, &name), Err(SignalError::Gone(_))));
    }
}
