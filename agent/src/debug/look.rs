//! Looks at the app and stops nothing.

use std::os::unix::fs::FileExt;

use devsync_protocol::build_id::{BuildId, go_version};
use devsync_protocol::debug::Debuggee;

use super::tool::Tool;
use crate::restart::helper;
use crate::sys::proc::ProcDir;
use crate::target::error::TargetError;
use crate::target::identity::Identity;

/// What the agent may have for debugging.
const TOOLS: [&str; 3] = ["gdbserver", "dlv", "strace"];

pub(super) fn look(app: &Identity) -> Result<Debuggee, TargetError> {
    let proc = ProcDir::open(app.pid())?;
    let status = proc.status()?;
    let (exe, cwd, file) = app.access().inspect(|| Ok((proc.exe()?, proc.cwd()?, proc.open_exe()?)))?;
    let mut read = |at, len: usize| {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at + filled as u64).ok()? {
                0 => break,
                len => filled += len,
            }
        }
        bytes.truncate(filled);
        Some(bytes)
    };
    let build_id = BuildId::read(&mut read);
    let go = build_id.go.as_ref().and_then(|_| go_version(&mut read));
    let name = |pid| ProcDir::open(pid).and_then(|tracer| tracer.comm()).unwrap_or_default();
    let tracer = (status.tracer != 0)
        .then(|| (status.tracer, String::from_utf8_lossy(&name(status.tracer)).into_owned()));
    // A traced process refuses a second tracer, which is told by itself.
    let refused = match tracer {
        Some(_) => None,
        None => helper::permitted(app.pid() as i32, app.start_time()).err().map(|no| (no.cause, no.hint)),
    };
    let ids = app.access().app();
    let tools = TOOLS.into_iter().filter(|tool| Tool::find(tool).is_ok()).map(str::to_owned).collect();
    Ok(Debuggee {
        pid: app.pid(),
        uid: ids.uid,
        gid: ids.gid,
        exe: String::from_utf8_lossy(&exe).into_owned(),
        cwd: Some(String::from_utf8_lossy(&cwd).into_owned()),
        build_id,
        go,
        delve: None,
        tracer,
        refused,
        tools,
    })
}
