//! Why a step of the loop could not be finished: the session is lost, which another one mends, or something is wrong.

use crate::error::CommandError;
use crate::session::SessionError;

#[derive(Debug)]
pub(super) enum Halt {
    /// Another session goes on where this one ended.
    Lost(SessionError),
    Failed(CommandError),
}

impl From<SessionError> for Halt {
    fn from(error: SessionError) -> Self {
        if error.is_loss() { Self::Lost(error) } else { Self::Failed(error.into()) }
    }
}

impl From<CommandError> for Halt {
    fn from(error: CommandError) -> Self {
        Self::Failed(error)
    }
}
