//! Who may restart whom: the container's usual rights, and refusals that say what is missing.

mod reexec_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use devsync_protocol::restart::{Ending, RefusalKind};
use reexec_support::*;
use seccompiler::{SeccompAction, SeccompFilter};

const DEFAULT_SET: &str = "--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+sys_chroot,+mknod,+audit_write,+setfcap";
const NO_SET: &str = "--bounding-set=-all";
const UNPRIVILEGED: [&str; 5] =
    ["--reuid=65532", "--regid=65532", "--clear-groups", "--inh-caps=-all", NO_SET];

/// A server of root's file that runs as uid 65532 without any capability.
fn unprivileged_server() -> (tempfile::TempDir, App) {
    let directory = tempfile::tempdir().expect("makes a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("sets the mode");
    let exe = directory.path().join("server");
    compile(&exe, "old");
    let app = App::start(Command::new("setpriv").args(UNPRIVILEGED).arg(&exe).args(["4", "0"]));
    app.line("START old");
    (directory, app)
}

#[test]
#[ignore = "needs: root"]
fn root_with_the_default_capabilities_restarts_an_unprivileged_app() {
    let (directory, mut app) = unprivileged_server();
    let start = start_time(app.pid);
    let helper = launcher(&["setpriv", DEFAULT_SET, "--inh-caps=-all"]);
    helper.permitted(app.pid, start).expect("is permitted");
    let restart = app.restart(GRACEFUL);
    compile(&directory.path().join("server"), "new");
    let done = helper.restart(app.pid, start, restart).expect("restarts");
    assert_eq!(done.ending, Ending::Immediate);
    app.line("START new");
    assert!(app.runs());
    assert_eq!(status(app.pid)["Uid"], "65532\t65532\t65532\t65532");
}

#[test]
#[ignore = "needs: root"]
fn the_same_ids_without_capabilities_suffice() {
    let (_directory, mut app) = unprivileged_server();
    let start = start_time(app.pid);
    let helper = launcher(&[&["setpriv"], &UNPRIVILEGED[..]].concat());
    helper.permitted(app.pid, start).expect("is permitted");
    helper.restart(app.pid, start, app.restart(GRACEFUL)).expect("restarts");
    app.line("START old");
    assert!(app.runs());
}

#[test]
#[ignore = "needs: root"]
fn another_user_is_refused_by_its_ids() {
    let (_directory, mut app) = unprivileged_server();
    let helper =
        launcher(&["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=-all", NO_SET]);
    let refusal = helper.permitted(app.pid, start_time(app.pid)).expect_err("is refused");
    assert_eq!(refusal.kind, RefusalKind::Ids, "{refusal:?}");
    assert!(app.runs());
}

#[test]
#[ignore = "needs: root"]
fn root_without_capabilities_is_told_what_it_lacks() {
    let mut app = App::start(Command::new("setpriv").args([
        DEFAULT_SET,
        "--inh-caps=-all",
        "python3",
        "-c",
        "import signal; print('START', flush=True); signal.pause()",
    ]));
    app.line("START");
    let helper = launcher(&["setpriv", NO_SET, "--inh-caps=-all"]);
    let refusal = helper.permitted(app.pid, start_time(app.pid)).expect_err("is refused");
    assert_eq!(refusal.kind, RefusalKind::Capabilities, "{refusal:?}");
    assert!(refusal.cause.contains("DAC_OVERRIDE"), "{refusal:?}");
    let failure =
        helper.restart(app.pid, start_time(app.pid), app.restart(GRACEFUL)).expect_err("is refused");
    assert!(failure.cause.contains("DAC_OVERRIDE"), "{failure:?}");
    assert!(app.runs());
}

#[test]
#[ignore = "needs: root"]
fn an_app_that_is_not_dumpable_is_said_to_be() {
    let (directory, app) = unprivileged_server();
    drop(app);
    // Who executes what it may not read is not dumpable.
    let exe = directory.path().join("server");
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o111)).expect("sets the mode");
    // setpriv itself still has capabilities at its execve, and with them the file is readable.
    let mut app = App::start(
        Command::new("setpriv").args(UNPRIVILEGED).args(["sh", "-c", "exec \"$0\" 4 0"]).arg(&exe),
    );
    app.line("START old");
    let helper = launcher(&[&["setpriv"], &UNPRIVILEGED[..]].concat());
    let refusal = helper.permitted(app.pid, start_time(app.pid)).expect_err("is refused");
    assert_eq!(refusal.kind, RefusalKind::NotDumpable, "{refusal:?}");
    assert!(app.runs());
}

#[test]
#[ignore = "needs: root"]
fn a_traced_app_is_refused_and_its_tracer_named() {
    let (_directory, mut app) = unprivileged_server();
    let pid = app.pid;
    nix::sys::ptrace::seize(nix::unistd::Pid::from_raw(pid), nix::sys::ptrace::Options::empty())
        .expect("is seized by the test");
    let refusal = launcher(&[]).permitted(pid, start_time(pid)).expect_err("is refused");
    assert_eq!(refusal.kind, RefusalKind::Traced, "{refusal:?}");
    assert!(app.runs());
}

/// A filter that answers ptrace with EPERM, for this thread and what it starts.
fn forbid_ptrace() {
    let arch = std::env::consts::ARCH.try_into().expect("is known");
    let rules = BTreeMap::from([(libc::SYS_ptrace, vec![])]);
    let errno = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).expect("is a filter");
    let program: seccompiler::BpfProgram = filter.try_into().expect("compiles");
    seccompiler::apply_filter(&program).expect("is applied");
}

#[test]
fn a_seccomp_filter_is_named_as_the_reason() {
    let (_directory, mut app, port) = server(2);
    let pid = app.pid;
    let restart = app.restart(GRACEFUL);
    let (refusal, failure) = std::thread::spawn(move || {
        forbid_ptrace();
        let start = start_time(pid);
        (launcher(&[]).permitted(pid, start), launcher(&[]).restart(pid, start, restart))
    })
    .join()
    .expect("ends");
    let refusal = refusal.expect_err("is refused");
    assert_eq!(refusal.kind, RefusalKind::Seccomp, "{refusal:?}");
    let failure = failure.expect_err("is refused");
    assert!(failure.cause.contains("seccomp"), "{failure:?}");
    assert!(app.runs());
    assert_eq!(ask_soon(port).0, "old");
}

#[test]
fn an_app_with_more_filters_than_the_agent_is_refused() {
    let app = std::thread::spawn(|| {
        forbid_ptrace();
        python("import signal; print('START', flush=True); signal.pause()", &[])
    });
    let mut app = app.join().expect("ends");
    app.line("START");
    let refusal = launcher(&[]).permitted(app.pid, start_time(app.pid)).expect_err("is refused");
    assert_eq!(refusal.kind, RefusalKind::AppSeccomp, "{refusal:?}");
    assert!(app.runs());
}

#[test]
fn a_number_that_was_given_to_another_process_is_refused() {
    let (_directory, mut app, _) = server(1);
    let failure = launcher(&[]).restart(app.pid, 1, app.restart(GRACEFUL)).expect_err("is refused");
    assert!(failure.cause.contains("not the one"), "{failure:?}");
    assert!(app.runs());
}
