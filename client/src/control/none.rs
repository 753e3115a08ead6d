//! No control socket on this system: commands take a target instead.

use tokio::sync::mpsc;

use super::{Answer, ControlError, Holder, Question};
use crate::engine::Command;
use crate::error::CommandError;

pub struct Attached {
    _commands: mpsc::Sender<Command>,
}

pub fn listen(_: &Holder, commands: mpsc::Sender<Command>) -> Result<Attached, ControlError> {
    Ok(Attached { _commands: commands })
}

pub fn running() -> Result<Vec<Holder>, ControlError> {
    Ok(Vec::new())
}

pub async fn ask(_: &Holder, _: &Question) -> Result<Answer, CommandError> {
    Err(CommandError::new("a running attach cannot be asked on this system").hint("name the target instead"))
}
