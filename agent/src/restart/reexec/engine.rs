//! The order of a re-exec: check, seize, end the old program, execute the new one, clear up, let go. Each step is
//! another module's; this one knows what is left of the app when a step fails.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use devsync_protocol::restart::{AppState, Ending, Refusal, RestartFailure};

use super::arch::Call;
use super::error::ReexecError;
use super::graceful::{self, Reception, Shutdown};
use super::image::{Before, Image};
use super::inject::{self, Injection};
use super::preflight::{self, Preflight};
use super::threads::Threads;
use super::{Done, Recorded, Restart, Style, after, recorded, refusal, retitled};
use crate::sys::proc_task;
use crate::sys::ptrace;

const PAGE: usize = 4096;
/// From here on the descriptors are the program's own; 0, 1 and 2 are the container's.
const FIRST_FD: i32 = 3;
const CLOSE_RANGE_CLOEXEC: u64 = 4;
/// How long a writer of the executable is waited for, and how often it is looked at.
const BUSY_TIME: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Says whether a process may be restarted, by seizing it for a moment.
pub(crate) fn probe(pid: i32, start_time: u64) -> Result<(), Refusal> {
    preflight::app(pid, start_time).map_err(|error| refusal::of(pid, error))?;
    let tids = proc_task::threads(pid).unwrap_or_default();
    let alive = |tid: &i32| proc_task::status(*tid).is_ok_and(|status| !status.is_dead());
    let tid = tids.into_iter().find(alive).unwrap_or(pid);
    // Not stopped, so that nothing in the app is interrupted; this process's end lets it go.
    ptrace::seize(tid).map_err(|error| refusal::explain(pid, &error))?;
    // With the rights of a tracer; a process that cannot be read is gone, which the restart will say.
    match retitled::evidence(pid) {
        Ok(Some(evidence)) => Err(retitled::refusal(pid, &evidence)),
        _ => Ok(()),
    }
}

/// Restarts a process. `begun` is called once, before the app is touched.
pub(crate) fn restart(
    pid: i32,
    start_time: u64,
    wanted: &Restart,
    begun: impl FnOnce(u64),
) -> Result<Done, RestartFailure> {
    let untouched = |error: ReexecError| error.into_failure(pid, &wanted.recorded.exe, AppState::Untouched);
    let instance = proc_task::program_instance(pid)
        .map_err(|e| ReexecError::Refused(refusal::explain(pid, &e)))
        .map_err(untouched)?;
    if wanted.instance.is_some_and(|seen| seen != instance) {
        return Ok(Done { ending: Ending::Forced, tracer_micros: 0, descendants: 0 });
    }
    let preflight = preflight::check(pid, start_time, &wanted.recorded).map_err(untouched)?;
    let mut threads = Threads::new(pid).map_err(untouched)?;
    begun(instance);
    let begin = Instant::now();
    let result = replace(&mut threads, start_time, wanted, &preflight);
    let micros = begin.elapsed().as_micros() as u64;
    match result {
        Ok((ending, descendants)) => Ok(Done { ending, tracer_micros: micros, descendants }),
        Err((error, state)) => {
            threads.release();
            let state = if proc_task::start_time(pid).is_ok() { state } else { AppState::Gone };
            Err(explained(pid, error).into_failure(pid, &wanted.recorded.exe, state))
        }
    }
}

/// A seize that was not permitted gets its reason.
fn explained(pid: i32, error: ReexecError) -> ReexecError {
    match error {
        ReexecError::Trace { operation: "seize", source, .. } => {
            ReexecError::Refused(refusal::explain(pid, &source))
        }
        other => other,
    }
}

type Failed = (ReexecError, AppState);

fn untouched(error: ReexecError) -> Failed {
    (error, AppState::Untouched)
}

fn replace(
    threads: &mut Threads,
    start_time: u64,
    wanted: &Restart,
    preflight: &Preflight,
) -> Result<(Ending, u32), Failed> {
    threads.seize_all().map_err(untouched)?;
    // Held from here on, so that the number cannot become another process's.
    preflight::app(threads.pid(), start_time).map_err(untouched)?;
    inject::check(threads).map_err(untouched)?;
    let was_stopped = preflight.status.state == 'T';
    let end = end_old_program(threads, wanted.style, was_stopped)?;
    let ending = end.ending;
    execute(threads, &end, &wanted.recorded)?;
    after::release(threads, &preflight.executable, wanted.end_descendants, was_stopped)
        .map(|descendants| (ending, descendants))
        .map_err(|error| (error, AppState::Unknown))
}

/// How far the old program was brought.
struct End {
    /// The thread that executes the new one.
    tid: i32,
    ending: Ending,
    /// What is left of the app if that fails.
    left: AppState,
}

/// Brings the old program to its end. Once SIGTERM was sent, no failure leaves it as it was.
fn end_old_program(threads: &mut Threads, style: Style, was_stopped: bool) -> Result<End, Failed> {
    let pid = threads.pid();
    let status = proc_task::status(pid).map_err(|_| untouched(threads.ended()))?;
    let mut left = match style {
        Style::Resume { .. } => AppState::Unknown,
        Style::Graceful { .. } | Style::Forced => AppState::Untouched,
    };
    let ending = match (style, graceful::reception(pid, &status)) {
        (Style::Forced, _) | (_, Reception::Nothing) => Ending::Forced,
        (_, Reception::Default) => Ending::Immediate,
        (_, Reception::Handled) => {
            if matches!(style, Style::Graceful { .. }) {
                graceful::tell(pid, was_stopped).map_err(untouched)?;
            }
            left = AppState::Unknown;
            match shut_down(threads, style).map_err(|error| (error, left))? {
                Shutdown::Ending(tid) => {
                    return Ok(End { tid, ending: Ending::Graceful, left: AppState::Gone });
                }
                Shutdown::Outlasted => Ending::Forced,
            }
        }
    };
    let tid = threads.candidates().first().copied().ok_or_else(|| (threads.ended(), left))?;
    Ok(End { tid, ending, left })
}

/// Waits for the program's own shutdown, and holds every thread again.
fn shut_down(threads: &mut Threads, style: Style) -> Result<Shutdown, ReexecError> {
    let shutdown = graceful::shut_down(threads, style.grace())?;
    // A second time, because the program is past its shutdown and must not be let go for one slow thread.
    let held = threads.stop_all().or_else(|_| threads.stop_all());
    match shutdown {
        // One that does not stop is ended by execve all the same.
        Shutdown::Ending(_) => {}
        Shutdown::Outlasted => held?,
    }
    Ok(shutdown)
}

/// Makes a thread execute the new program, and undoes everything if it cannot. A program that was told to end is
/// started again from its old executable then: it must not end with its container.
fn execute(threads: &mut Threads, end: &End, recorded: &Recorded) -> Result<(), Failed> {
    let mut injection = Injection::begin(threads, end.tid).map_err(|error| (error, end.left))?;
    let mut image = None;
    let result = prepare(threads, &mut injection, recorded, &mut image)
        .and_then(|image| run(threads, &injection, &recorded.exe, image));
    let Err(error) = result else { return Ok(()) };
    if let (true, Some(image)) = (end.left != AppState::Untouched, &image)
        && injection.execute(threads, image.old_path, image.argv, image.envp).is_ok()
    {
        return Err((error, AppState::OldStartedAgain));
    }
    // What failed first is what is told.
    let _ = injection.end(threads);
    Err((error, end.left))
}

/// Makes every call before the last one. Nothing is changed before the call that undoes it is in place.
fn prepare<'i>(
    threads: &mut Threads,
    injection: &mut Injection,
    recorded: &Recorded,
    made: &'i mut Option<Image>,
) -> Result<&'i Image, ReexecError> {
    let mut before = state(threads.pid(), recorded, injection.mask())?;
    let size = Image::new(0, recorded, &before).bytes.len().next_multiple_of(PAGE);
    let base = injection.map(threads, size)?;
    if before.directory.is_some() {
        before.directory = Some(open_directory(threads, injection, base)?);
    }
    let image = made.insert(Image::new(base, recorded, &before));
    injection.write(base, &image.bytes)?;
    injection.arm(image.undo_list, std::mem::take(&mut image.undo))?;
    for (signal, action) in before.ignored.iter().zip(&image.actions) {
        let call = Call::new(libc::SYS_rt_sigaction, [*signal as u64, image.default_action, *action, 8]);
        injection.call(threads, "sigaction", &call)?;
    }
    if before.directory.is_some() {
        injection.call(threads, "chdir", &Call::new(libc::SYS_chdir, [image.cwd]))?;
    }
    if before.umask.is_some() {
        injection.call(threads, "umask", &Call::new(libc::SYS_umask, [u64::from(recorded.umask)]))?;
    }
    mark_descriptors(threads, injection, &before)?;
    Ok(image)
}

/// What of the app's state the calls will change.
fn state(pid: i32, wanted: &Recorded, mask: u64) -> Result<Before, ReexecError> {
    let failed = |what| move |source| ReexecError::Proc { what, pid, source };
    let status = proc_task::status(pid).map_err(failed("status"))?;
    let directory = recorded::working_directory(pid).map_err(failed("working directory"))?;
    let descriptors = proc_task::descriptors(pid).map_err(failed("descriptors"))?;
    let kept = descriptors.into_iter().filter(|(fd, cloexec)| *fd >= FIRST_FD && !cloexec);
    Ok(Before {
        ignored: (1..=64).filter(|signal| status.sig_ignored >> (signal - 1) & 1 == 1).collect(),
        kept: kept.map(|(fd, _)| fd).collect(),
        mask,
        umask: status.umask.filter(|umask| *umask != wanted.umask),
        directory: (directory.as_ref() != Some(&wanted.cwd)).then_some(0),
    })
}

/// A descriptor of the app's working directory, through which it comes back.
fn open_directory(threads: &mut Threads, injection: &Injection, at: u64) -> Result<i32, ReexecError> {
    injection.write(at, b".\0")?;
    let flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
    let call = Call::new(libc::SYS_openat, [libc::AT_FDCWD as i64 as u64, at, flags, 0]);
    injection.call(threads, "open", &call).map(|fd| fd as i32)
}

/// Lets execve close every descriptor but the first three.
fn mark_descriptors(
    threads: &mut Threads,
    injection: &Injection,
    before: &Before,
) -> Result<(), ReexecError> {
    let all = [FIRST_FD as u64, u64::from(u32::MAX), CLOSE_RANGE_CLOEXEC];
    if injection.call(threads, "close_range", &Call::new(libc::SYS_close_range, all)).is_ok() {
        return Ok(());
    }
    // Before Linux 5.11, or filtered.
    for fd in &before.kept {
        let call = Call::new(libc::SYS_fcntl, [*fd as u64, libc::F_SETFD as u64, libc::FD_CLOEXEC as u64]);
        injection.call(threads, "fcntl", &call)?;
    }
    Ok(())
}

/// The execve itself; an executable that is still open for writing gets a moment.
fn run(
    threads: &mut Threads,
    injection: &Injection,
    exe: &std::path::Path,
    image: &Image,
) -> Result<(), ReexecError> {
    let deadline = Instant::now() + BUSY_TIME;
    loop {
        match injection.execute(threads, image.path, image.argv, image.envp) {
            Ok(()) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) && Instant::now() < deadline => {
                std::thread::sleep(BUSY_PAUSE);
            }
            Err(source) => return Err(execute_error(exe.to_owned(), source)),
        }
    }
}

fn execute_error(path: PathBuf, source: io::Error) -> ReexecError {
    match source.raw_os_error() {
        Some(libc::ETXTBSY) => ReexecError::Busy { path },
        _ => ReexecError::Execute { path, source },
    }
}
