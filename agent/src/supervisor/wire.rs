//! What devsync-run and the agent say to each other, and how it is framed. Pure: no IO.
//!
//! A frame is a little-endian u32 length, then a version byte and one postcard message of that length together.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// First byte of every frame's body.
pub const VERSION: u8 = 1;
/// Longest body of a request.
pub const MAX_REQUEST: usize = 64;
/// Bytes of output kept and sent.
pub const RING_BYTES: usize = 64 * 1024;
/// Longest body of a reply: the ring and what is around it.
pub const MAX_REPLY: usize = RING_BYTES + 8 * 1024;
/// Longest settle time a restart may ask for.
pub const MAX_SETTLE_MS: u32 = 60_000;

const HEADER: usize = 4;

/// Asked by the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Status,
    /// End the app and all its descendants, and start it again. The answer comes when the new program runs and has not
    /// crashed for `settle_ms`, or is held.
    Restart {
        settle_ms: u32,
    },
    /// The last output of the present run, or of the one that is held.
    Output,
}

/// Answered by devsync-run, one per request, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Status(Status),
    /// `micros` from the request until exec(2) of the new program succeeded. Pids are of the supervisor's namespace.
    Restarted {
        old: Option<i32>,
        new: i32,
        micros: u64,
    },
    /// The program was asked to start and does not run.
    Held {
        old: Option<i32>,
        held: Held,
    },
    Output(Vec<u8>),
    Refused(Refusal),
}

/// What the supervisor is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub state: State,
    /// Starts after the first one, whoever asked for them.
    pub restarts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    Running {
        pid: i32,
        for_ms: u64,
    },
    /// The old processes are being ended; `pid` is the app's while it still lives.
    Stopping {
        pid: Option<i32>,
    },
    Held(Held),
    /// Without crash-hold: starts again by itself.
    Waiting {
        held: Held,
        starts_in_ms: u64,
    },
}

/// Why no app runs, and what it said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub cause: Cause,
    pub for_ms: u64,
    /// Empty also when the output went straight to a terminal.
    pub output: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    Exited {
        code: i32,
    },
    Signalled {
        signal: i32,
        core: bool,
    },
    /// exec(2) failed with `errno`.
    NotStarted {
        program: String,
        errno: i32,
    },
    /// So many old processes did not end even by SIGKILL, so nothing new was started.
    Stuck {
        left: u32,
    },
    /// It was not started yet: the first request does it.
    FirstSync,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Exited { code } => write!(f, "it exited with status {code}"),
            Cause::Signalled { signal, core } => {
                let name = nix::sys::signal::Signal::try_from(*signal)
                    .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
                write!(f, "it was ended by {name}{}", if *core { ", core dumped" } else { "" })
            }
            Cause::NotStarted { program, errno } => {
                let program = devsync_protocol::path::display(program.as_bytes());
                write!(f, "{program} cannot be started: {}", nix::errno::Errno::from_raw(*errno).desc())
            }
            Cause::Stuck { left } => write!(f, "{left} old processes did not end by SIGKILL"),
            Cause::FirstSync => f.write_str("it waits for its first sync"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The peer is neither root nor of the supervisor's uid.
    Uid,
    /// The version byte is not the supervisor's.
    Version(u8),
    /// Not a request.
    Malformed,
    /// The supervisor was told to end.
    Ending,
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("a message of {0} bytes is over the limit of {1}")]
    TooLong(usize, usize),
    #[error("protocol version {0}, but {VERSION} is spoken here")]
    Version(u8),
    #[error("the message cannot be decoded")]
    Malformed,
}

/// Appends `message` as a frame.
pub fn encode(message: &impl Serialize, into: &mut Vec<u8>) -> Result<(), WireError> {
    let start = into.len();
    into.extend([0; HEADER]);
    into.push(VERSION);
    let body = postcard::to_stdvec(message).map_err(|_| WireError::Malformed)?;
    into.extend(body);
    let length = u32::try_from(into.len() - start - HEADER).map_err(|_| WireError::Malformed)?;
    into[start..start + HEADER].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Decodes the first frame of `bytes` if it is whole: the message and how many bytes it took.
pub fn decode<M: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<Option<(M, usize)>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_le_bytes(*header) as usize;
    if length > limit {
        return Err(WireError::TooLong(length, limit));
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let (version, message) = body.split_first().ok_or(WireError::Malformed)?;
    if *version != VERSION {
        return Err(WireError::Version(*version));
    }
    match postcard::take_from_bytes(message) {
        Ok((message, [])) => Ok(Some((message, HEADER + length))),
        _ => Err(WireError::Malformed),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn replies() -> Vec<Reply> {
        let held =
            Held { cause: Cause::Signalled { signal: 11, core: true }, for_ms: 3, output: vec![7; 999] };
        vec![
            Reply::Status(Status { state: State::Running { pid: 9, for_ms: 1 }, restarts: 4 }),
            Reply::Held { old: Some(3), held },
            Reply::Refused(Refusal::Version(9)),
        ]
    }

    #[test]
    fn a_frame_comes_back_and_every_shorter_one_is_incomplete() {
        for reply in replies() {
            let mut frame = Vec::new();
            encode(&reply, &mut frame).unwrap();
            let whole = frame.len();
            assert_eq!(decode(&frame, MAX_REPLY), Ok(Some((reply, whole))));
            for cut in 0..whole {
                assert_eq!(decode::<Reply>(&frame[..cut], MAX_REPLY), Ok(None));
            }
        }
    }

    #[test]
    fn lengths_versions_and_rests_are_checked() {
        let mut frame = Vec::new();
        encode(&Request::Status, &mut frame).unwrap();
        assert_eq!(
            decode::<Request>(&u32::MAX.to_le_bytes(), 64),
            Err(WireError::TooLong(u32::MAX as usize, 64))
        );
        let mut other = frame.clone();
        other[4] = 9;
        assert_eq!(decode::<Request>(&other, 64), Err(WireError::Version(9)));
        let mut longer = frame.clone();
        longer[0] += 1;
        longer.push(0);
        assert_eq!(decode::<Request>(&longer, 64), Err(WireError::Malformed));
        assert_eq!(decode::<Request>(&[0; 4], 64), Err(WireError::Malformed));
    }

    #[test]
    fn the_longest_request_and_reply_fit_their_limits() {
        let mut frame = Vec::new();
        encode(&Request::Restart { settle_ms: u32::MAX }, &mut frame).unwrap();
        assert!(frame.len() <= MAX_REQUEST);
        let cause = Cause::NotStarted { program: "x".repeat(4096), errno: i32::MIN };
        let held = Held { cause, for_ms: u64::MAX, output: vec![0xff; RING_BYTES] };
        frame.clear();
        let state = State::Waiting { held, starts_in_ms: u64::MAX };
        encode(&Reply::Status(Status { state, restarts: u32::MAX }), &mut frame).unwrap();
        assert!(frame.len() <= MAX_REPLY);
    }
}
