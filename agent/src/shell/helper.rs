//! The helper's main: from the agent's rights and root to the app's, in an order in which each step is still
//! permitted, then execve. It is a process of its own, so it may change what belongs to a process.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, Gid, Uid};

use super::plan::{self, Plan, Refusal, Task};
use super::{beside, direct, passwd, toolbox, words};
use crate::sys::{capabilities, descriptors, dumpable, inherit, signals, terminal};

/// The arguments with which this executable is the helper.
pub const ARGUMENTS: [&str; 2] = ["helper", "shell"];
/// Where the app's PATH is not set.
pub(crate) const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of /etc/passwd.
const LONGEST: u64 = 1024 * 1024;
/// Tried after the user's own.
pub(crate) const SHELLS: [&[u8]; 4] = [b"/bin/sh", b"/bin/bash", b"/bin/ash", b"/busybox/sh"];

/// Why nothing was executed; said to the client as it is.
pub(super) struct Failure {
    refusal: Refusal,
    words: String,
}

impl Failure {
    pub(super) fn new(words: impl Into<String>) -> Self {
        Self { refusal: Refusal::Other, words: words.into() }
    }

    pub(super) fn missing(words: impl Into<String>) -> Self {
        Self { refusal: Refusal::Missing, words: words.into() }
    }
}

pub(super) type Done<T> = Result<T, Failure>;

pub(super) fn failed(what: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::new(format!("cannot {what}: {}", errno.desc()))
}

/// Returns only where nothing was executed.
pub fn helper_main() -> ExitCode {
    let Some(talk) = inherit::take(plan::TALK) else { return ExitCode::from(255) };
    let mut talk = UnixStream::from(talk);
    // Nothing of the agent's goes on to the program: this end too is closed by execve.
    descriptors::close_on_exec_from(inherit::FIRST);
    match work(&mut talk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { refusal, words }) => {
            // Nobody is there to be told where this fails.
            let _ = talk.write_all(&[&[refusal.byte()], words.as_bytes()].concat());
            ExitCode::from(255)
        }
    }
}

/// Returns without an error where it was only to look.
fn work(talk: &mut UnixStream) -> Done<()> {
    let mut bytes = Vec::new();
    let read = talk.take(plan::LONGEST).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(format!("the helper was not told what to do: {error}")))?;
    let plan: Plan = postcard::from_bytes(&bytes)
        .map_err(|error| Failure::new(format!("the helper does not understand what to do: {error}")))?;
    // The app's own program is tried first; what is opened here cannot be reached any more later.
    let toolbox = inherit::take(plan::TOOLBOX);
    let open = |name| toolbox.as_ref().and_then(|directory| toolbox::program(directory, name));
    let serves = |directory: &OwnedFd| match &plan.task {
        Task::Program(words) => words.first().is_some_and(|name| toolbox::has_applet(directory, name)),
        Task::Look | Task::Shell(_) | Task::Beside => true,
    };
    let busybox = open("busybox").filter(|_| toolbox.as_ref().is_some_and(serves));
    let rsync = open("rsync");
    drop(toolbox);
    session(&plan)?;
    if plan.task == Task::Beside {
        beside::cannot_be_traced(&plan)?;
        stand_in_root(&plan, &app_root()?)?;
        become_app(&plan)?;
        match beside::execute(&plan, busybox)? {}
    }
    enter_root(&plan)?;
    become_app(&plan)?;
    if plan.task == Task::Look {
        return Ok(());
    }
    let directory = c_string(&plan.directory)?;
    // Gone, or not for these ids: then it is `/`, as after a login.
    if unistd::chdir(directory.as_c_str()).is_err() {
        unistd::chdir(c"/").map_err(failed("enter the app's root directory"))?;
    }
    signals::default_sigpipe();
    match execute(&plan, busybox, rsync)? {}
}

/// A session of its own, with the terminal where there is one; nothing ignored, nothing blocked.
fn session(plan: &Plan) -> Done<()> {
    unistd::setsid().map_err(failed("begin a session"))?;
    if plan.terminal {
        terminal::control(io::stdin()).map_err(failed("take the terminal"))?;
    }
    signals::reset_ignored();
    umask(Mode::from_bits_truncate(plan.umask));
    if let Some((soft, hard)) = plan.open_files {
        // Best effort: programs work with the higher limit too.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
    Ok(())
}

fn app_root() -> Done<OwnedFd> {
    inherit::take(plan::ROOT).ok_or_else(|| Failure::new("the app's root is not there"))
}

/// Only the descriptor says which root; without the right to change it nothing is executed.
fn enter_root(plan: &Plan) -> Done<()> {
    let root = app_root()?;
    if !plan.other_root {
        return Ok(());
    }
    stand_in_root(plan, &root)?;
    unistd::chroot(c".").map_err(|errno| match errno {
        Errno::EPERM => Failure {
            refusal: Refusal::Root,
            words:
                "no program can be run in the app's root: the agent has not the capability SYS_CHROOT (hint: \
                    `devsync shell TARGET` gives a shell all the same: the app's own, or one beside it)"
                    .to_owned(),
        },
        errno => failed("change to the app's root")(errno),
    })
}

/// The app's root is the working directory then.
fn stand_in_root(plan: &Plan, root: &OwnedFd) -> Done<()> {
    let entered = unistd::fchdir(root).or_else(|errno| match errno {
        // Its owner may search it where the agent may not.
        Errno::EACCES => as_app(plan, || unistd::fchdir(root)),
        errno => Err(errno),
    });
    entered.map_err(failed("enter the app's root"))
}

fn as_app(plan: &Plan, run: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    let ids = crate::sys::ids::FsIds { uid: plan.uid, gid: plan.gid };
    let _guard = crate::sys::ids::FsIdGuard::enter(ids).map_err(|_| Errno::EPERM)?;
    run()
}

/// The app's ids and no more than its capabilities, checked afterwards.
fn become_app(plan: &Plan) -> Done<()> {
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    let bounded = capabilities::bound(plan.bounding);
    if plan.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(failed("give up new privileges"))?;
    }
    let groups: Vec<Gid> = plan.groups.iter().copied().map(Gid::from_raw).collect();
    let switched = unistd::setgroups(&groups)
        .and_then(|()| unistd::setresgid(gid, gid, gid))
        .and_then(|()| unistd::setresuid(uid, uid, uid));
    // Without SETUID and SETGID it works where there is nothing to change.
    let real = unistd::getresuid().map_err(failed("read the own ids"))?;
    let group = unistd::getresgid().map_err(failed("read the own ids"))?;
    let same = [real.real, real.effective, real.saved] == [uid; 3]
        && [group.real, group.effective, group.saved] == [gid; 3];
    if !same {
        let errno = switched.err().unwrap_or(Errno::EPERM);
        return Err(Failure::new(format!(
            "cannot take the app's ids {uid}:{gid}: {} (hint: run the agent as root with the runtime's default \
             capabilities, or with runAsUser: {uid} and runAsGroup: {gid})",
            errno.desc()
        )));
    }
    // What a change of ids makes of it is the sysctl fs.suid_dumpable.
    let _ = dumpable::harden();
    // Another uid than root's has none left here.
    // The proc file system that is seen here is the app's.
    let own = capabilities::permitted().map_err(failed("read the own capabilities"))?;
    capabilities::set(own & plan.permitted).map_err(failed("give up capabilities"))?;
    // root gets at execve what the bounding set permits.
    let exceeds = capabilities::bounding() & !plan.bounding != 0;
    match bounded {
        Err(errno) if plan.uid == 0 && exceeds && !plan.no_new_privileges => Err(Failure::new(format!(
            "cannot give up the capabilities that the app has not: {} (hint: give the agent SETPCAP, or drop the \
             same capabilities in both containers)",
            errno.desc()
        ))),
        _ => Ok(()),
    }
}

/// What runs: the app's shell, else the toolbox's.
fn execute(plan: &Plan, busybox: Option<File>, rsync: Option<File>) -> Done<std::convert::Infallible> {
    let text = read_passwd();
    let user = passwd::line(&text, plan.uid);
    let environment = environment(plan, user.as_ref())?;
    let command = match &plan.task {
        Task::Program(words) => {
            return direct::execute(words, &environment, busybox, rsync);
        }
        Task::Shell(command) => command.as_deref(),
        Task::Look | Task::Beside => return Err(Failure::new("there is nothing to execute")),
    };
    if let (Some(program), Some(command)) = (rsync, command)
        && let Some(words) = rsync_server(command, &environment)
    {
        let copy = toolbox::sealed(program, c"rsync");
        return by_descriptor(copy, &words, &environment);
    }
    let own = user.as_ref().and_then(|user| user.shell);
    let mut worst = Errno::ENOENT;
    for shell in own.into_iter().chain(SHELLS) {
        match unistd::execve(&c_string(shell)?, &arguments(shell, command)?, &environment) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ENOEXEC | Errno::ELOOP) => {}
            Err(errno) => worst = errno,
        }
    }
    let busybox = busybox.ok_or_else(|| {
        let why = if worst == Errno::ENOENT { String::new() } else { format!(" ({})", worst.desc()) };
        Failure::new(format!(
            "the app's root has no shell that can be executed{why}, and beside the agent is no toolbox (hint: use \
             the agent's toolbox image, or name a directory with a static busybox in {})",
            toolbox::TOOLBOX
        ))
    })?;
    let words = arguments(b"sh", command)?;
    by_descriptor(toolbox::sealed(busybox, c"busybox"), &words, &environment)
}

pub(super) fn by_descriptor(
    program: io::Result<OwnedFd>,
    words: &[CString],
    environment: &[CString],
) -> Done<std::convert::Infallible> {
    let program =
        program.map_err(|error| Failure::new(format!("cannot hold the toolbox's program: {error}")))?;
    unistd::execveat(&program, c"", words, environment, AtFlags::AT_EMPTY_PATH)
        .map_err(failed("execute the toolbox's program"))
}

fn arguments(shell: &[u8], command: Option<&[u8]>) -> Done<Vec<CString>> {
    let name = shell.rsplit(|b| *b == b'/').next().unwrap_or(shell);
    match command {
        Some(command) => [name, b"-c", command].into_iter().map(c_string).collect(),
        None => Ok(vec![c_string(name)?]),
    }
}

/// The words of an rsync server's command line, if that is what it is and the app has no rsync.
fn rsync_server(command: &[u8], environment: &[CString]) -> Option<Vec<CString>> {
    let words = words::split(command)?;
    let is_server = words.first()? == b"rsync" && words.get(1)? == b"--server";
    let found = direct::candidates(b"rsync", environment)
        .iter()
        .any(|candidate| unistd::access(candidate.as_slice(), unistd::AccessFlags::X_OK).is_ok());
    (is_server && !found).then(|| words.into_iter().map(CString::new).collect::<Result<_, _>>().ok())?
}

/// The app's, with what a login adds where the app has it not.
fn environment(plan: &Plan, user: Option<&passwd::Line<'_>>) -> Done<Vec<CString>> {
    let mut environment: Vec<CString> =
        plan.wishes.iter().chain(&plan.environment).map(|entry| c_string(entry)).collect::<Done<_>>()?;
    let mut add = |name: &[u8], value: Option<&[u8]>| -> Done<()> {
        let prefix = [name, b"="].concat();
        let there = environment.iter().any(|entry| entry.to_bytes().starts_with(&prefix));
        if let (false, Some(value)) = (there, value) {
            environment.push(c_string(&[prefix.as_slice(), value].concat())?);
        }
        Ok(())
    };
    add(b"PATH", Some(PATH))?;
    add(b"HOME", Some(user.map_or(plan.directory.as_slice(), |user| user.home)))?;
    add(b"USER", user.map(|user| user.name))?;
    add(b"LOGNAME", user.map(|user| user.name))?;
    Ok(environment)
}

/// As the app, in its root; empty where it cannot be read.
fn read_passwd() -> Vec<u8> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut text = Vec::new();
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd");
    if let Ok(file) = file {
        let _ = file.take(LONGEST).read_to_end(&mut text);
    }
    text
}

pub(super) fn c_string(bytes: &[u8]) -> Done<CString> {
    CString::new(bytes).map_err(|_| Failure::new("an argument holds a NUL byte"))
}
