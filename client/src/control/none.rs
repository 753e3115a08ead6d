//! No control socket on this system: commands take a target instead.

use super::{Answer, ControlError, Desk, Holder, Question};
use crate::error::CommandError;

pub struct Attached;

pub fn listen(_: &Holder, _: Desk) -> Result<Attached, ControlError> {
    Ok(Attached)
}

pub fn running() -> Result<Vec<Holder>, ControlError> {
    Ok(Vec::new())
}

pub async fn ask(_: &Holder, _: &Question) -> Result<Answer, CommandError> {
    Err(CommandError::new("a running attach cannot be asked on this system").hint("name the target instead"))
}
