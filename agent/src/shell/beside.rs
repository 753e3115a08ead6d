//! The shell beside the app: the toolbox's, in the agent's own container, for an agent that may not enter the app's
//! root. It runs with the app's ids, as all that is run for a client; nothing that the app chose decides what it does.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};

use devsync_protocol::contract::{ROOT_VARIABLE, TOOLBOX};

use super::helper::{Done, Failure, by_descriptor, c_string, failed};
use super::plan::Plan;
use super::toolbox;
use crate::sys::{capabilities, signals};

/// CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: with one of them nothing is unreadable.
const READS_ALL: u64 = 1 << 1 | 1 << 2;
/// 1 there makes programs dumpable that should not be (proc(5)).
const SUID_DUMPABLE: &str = "/proc/sys/fs/suid_dumpable";

/// Refuses where what is started could be traced by the app all the same; before the app's ids are taken.
pub(super) fn cannot_be_traced(plan: &Plan) -> Done<()> {
    let bounding = capabilities::bounding() & plan.bounding;
    let regains = plan.uid == 0 && bounding & READS_ALL != 0;
    let is_safe = fs::read_to_string(SUID_DUMPABLE).is_ok_and(|value| matches!(value.trim(), "0" | "2"));
    if regains || !is_safe {
        return Err(Failure::new(
            "a shell beside the app could be traced by it: the app is root with a container's capabilities, or the \
             sysctl fs.suid_dumpable is 1 (hint: give the agent SYS_CHROOT, then the shell is in the app's root)",
        ));
    }
    Ok(())
}

/// Executes it. The working directory is the app's root already, and the ids are the app's.
///
/// The app may have the shell's uid, and sees it in its process namespace. What keeps it from tracing the shell, and so
/// from the agent's container, is that busybox's copy cannot be read: the kernel starts it undumpable, each applet too.
pub(super) fn execute(plan: &Plan, busybox: Option<File>) -> Done<Infallible> {
    let busybox = busybox.ok_or_else(|| {
        Failure::missing(format!(
            "beside the agent is no toolbox (hint: use the agent's toolbox image, or name a directory with a static \
             busybox in {})",
            toolbox::TOOLBOX
        ))
    })?;
    capabilities::set(0).map_err(failed("give up capabilities"))?;
    signals::default_sigpipe();
    by_descriptor(toolbox::unreadable(busybox, c"busybox"), &[c_string(b"sh")?], &environment(plan)?)
}

/// Nothing of the app's environment: names like ENV and PATH would let it choose what runs here.
fn environment(plan: &Plan) -> Done<Vec<CString>> {
    let root = plan.root.as_slice();
    let own = [
        [ROOT_VARIABLE.as_bytes(), b"=", root].concat(),
        // A logical working directory: its descriptor is outside of this root, where getcwd(2) has no name for it.
        [b"PWD=", root].concat(),
        // Not the app's root: vi, and a login shell, run commands of files that lie in their home.
        b"HOME=/nonexistent".to_vec(),
        // Applets need none; only the debuggers are found by name.
        format!("PATH={TOOLBOX}/debug").into_bytes(),
        b"PS1=(beside the app) \\w \\$ ".to_vec(),
    ];
    let name = |entry: &[u8]| entry.split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    let taken: Vec<_> = own.iter().map(|entry| name(entry)).collect();
    let wishes = plan.wishes.iter().filter(|wish| !taken.contains(&name(wish)));
    wishes.chain(&own).map(|entry| c_string(entry)).collect()
}
