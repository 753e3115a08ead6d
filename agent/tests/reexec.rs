//! Restarts of real programs in place: what they keep, what they lose, and who notices.

mod reexec_support;

use std::process::Command;
use std::time::Duration;

use devsync_agent::restart::reexec::Style;
use devsync_protocol::restart::Ending;
use reexec_support::*;

fn runs_new_code(threads: usize) {
    let (directory, mut app, _) = server(threads);
    let mut restart = app.restart(GRACEFUL);
    compile(&directory.path().join("server"), "new");
    restart.recorded.argv.push("unused".into());
    let done = launcher(&[]).restart(app.pid, start_time(app.pid), restart).expect("restarts");
    assert_eq!(done.ending, Ending::Immediate);
    let line = app.line("START new");
    assert!(line.starts_with(&format!("{} ", app.pid)), "{line}");
    assert!(app.runs());
    println!("{threads} threads: tracer {} us", done.tracer_micros);
}

#[test]
fn one_thread_runs_new_code_under_the_same_pid() {
    runs_new_code(1);
}

#[test]
fn sixty_four_threads_run_new_code_under_the_same_pid() {
    runs_new_code(64);
}

const PYTHON_SERVER: &str = r#"
import os, signal, socket, sys, threading, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(5); os.set_inheritable(s.fileno(), True)
for _ in range(4): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print("START", os.getpid(), s.getsockname()[1], sorted(int(x) for x in os.listdir("/proc/self/fd")), flush=True)
while True:
    c, _ = s.accept(); c.close()
"#;

#[test]
fn a_blocked_sigterm_and_an_inheritable_socket_do_not_survive() {
    let mut app = python(PYTHON_SERVER, &[&free_port()]);
    let first = app.line("START");
    let who = first.split(" [").next().expect("has a PID and a port").to_owned();
    let done = launcher(&[]).restart(app.pid, start_time(app.pid), app.restart(GRACEFUL)).expect("restarts");
    assert_eq!(done.ending, Ending::Forced);
    assert_eq!(app.line("START"), format!("{who} [0, 1, 2, 3, 4]"), "its socket, and the directory it reads");
    assert!(app.runs());
    println!("python: tracer {} us", done.tracer_micros);
}

const PYTHON_HANDLER: &str = r#"
import atexit, os, signal, sys, threading, time
def h(*a): print("HANDLER", flush=True); sys.exit(3)
signal.signal(signal.SIGTERM, h)
atexit.register(lambda: print("ATEXIT", flush=True))
for _ in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print("START", os.getpid(), flush=True)
while True: time.sleep(0.01)
"#;

#[test]
fn handler_and_exit_hook_run_before_the_new_program() {
    let mut app = python(PYTHON_HANDLER, &[]);
    let first = app.line("START");
    let done = launcher(&[]).restart(app.pid, start_time(app.pid), app.restart(GRACEFUL)).expect("restarts");
    assert_eq!(done.ending, Ending::Graceful);
    app.line("HANDLER");
    app.line("ATEXIT");
    assert_eq!(app.line("START"), first);
    assert!(app.runs());
}

#[test]
fn a_shutdown_that_outlasts_its_grace_is_cut_short() {
    let code = "import os,signal,time\nsignal.signal(15, lambda *a: print('HANDLER', flush=True))\nprint('START', os.getpid(), flush=True)\nwhile True: time.sleep(0.01)";
    let mut app = python(code, &[]);
    let first = app.line("START");
    let style = Style::Graceful { grace: Duration::from_millis(300) };
    let done = launcher(&[]).restart(app.pid, start_time(app.pid), app.restart(style)).expect("restarts");
    assert_eq!(done.ending, Ending::Forced);
    app.line("HANDLER");
    assert_eq!(app.line("START"), first);
    assert!(app.runs());
}

#[test]
fn a_handler_that_ends_itself_by_the_signal_is_restarted() {
    let code = "import os,signal,time\ndef h(*a):\n  print('HANDLER', flush=True); signal.signal(15, signal.SIG_DFL); os.kill(os.getpid(), 15)\nsignal.signal(15, h)\nprint('START', os.getpid(), flush=True)\nwhile True: time.sleep(0.01)";
    let mut app = python(code, &[]);
    let first = app.line("START");
    let done = launcher(&[]).restart(app.pid, start_time(app.pid), app.restart(GRACEFUL)).expect("restarts");
    assert_eq!(done.ending, Ending::Graceful);
    app.line("HANDLER");
    assert_eq!(app.line("START"), first);
    assert!(app.runs());
}

#[test]
fn a_crash_during_the_shutdown_is_restarted() {
    let code = "import os,signal,time\ndef h(*a):\n  print('HANDLER', flush=True); os.kill(os.getpid(), 11)\nsignal.signal(15, h)\nprint('START', os.getpid(), flush=True)\nwhile True: time.sleep(0.01)";
    let mut app = python(code, &[]);
    let first = app.line("START");
    launcher(&[]).restart(app.pid, start_time(app.pid), app.restart(GRACEFUL)).expect("restarts");
    app.line("HANDLER");
    assert_eq!(app.line("START"), first);
    assert!(app.runs());
}

#[test]
fn a_program_that_waits_for_signals_shuts_down_by_itself() {
    let code = "import os,signal\nsignal.pthread_sigmask(signal.SIG_BLOCK,[15])\nprint('START', os.getpid(), flush=True)\nsignal.sigwait([15])\nprint('ENDING', flush=True)";
    let mut app = python(code, &[]);
    let first = app.line("START");
    // Seen in sigwait, which is what makes it known.
    soon(|| {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", app.pid)).ok()?;
        call.starts_with(&format!("{} ", libc::SYS_rt_sigtimedwait)).then_some(())
    })
    .expect("waits");
    let done = launcher(&[]).restart(app.pid, start_time(app.pid), app.restart(GRACEFUL)).expect("restarts");
    assert_eq!(done.ending, Ending::Graceful);
    app.line("ENDING");
    assert_eq!(app.line("START"), first);
    assert!(app.runs());
}

#[test]
fn a_stopped_program_is_restarted_and_runs() {
    let mut app = python("import os,signal\nprint('START', os.getpid(), flush=True)\nsignal.pause()", &[]);
    let first = app.line("START");
    devsync_agent::restart::signal::send(app.pid, start_time(app.pid), &"STOP".parse().expect("is a name"))
        .expect("stops");
    soon(|| (state(app.pid) == 'T').then_some(())).expect("is stopped");
    launcher(&[]).restart(app.pid, start_time(app.pid), app.restart(GRACEFUL)).expect("restarts");
    assert_eq!(app.line("START"), first);
    assert!(app.runs());
}

#[test]
fn workers_are_ended_and_collected() {
    let code = "import os,signal,subprocess,time\nfor _ in range(3):\n  if os.fork()==0:\n    signal.signal(15, signal.SIG_IGN if _==0 else signal.SIG_DFL); time.sleep(1000)\nif os.fork()==0: os._exit(0)\ntime.sleep(0.05)\nprint('START', os.getpid(), flush=True)\nsignal.pause()";
    let mut app = python(code, &[]);
    app.line("START");
    let old = devsync_agent::restart::descendants::of(app.pid);
    assert_eq!(old.len(), 3);
    let done = launcher(&[]).restart(app.pid, start_time(app.pid), app.restart(GRACEFUL)).expect("restarts");
    assert_eq!(done.descendants, 3);
    app.line("START");
    let new = devsync_agent::restart::descendants::of(app.pid);
    assert!(old.iter().all(|pid| !new.contains(pid)), "{old:?} {new:?}");
    assert_eq!(zombies_of(app.pid), 1, "only the new program's own");
    assert!(app.runs());
    for pid in new {
        let _ =
            devsync_agent::restart::signal::send(pid, start_time(pid), &"KILL".parse().expect("is a name"));
    }
}

#[test]
#[ignore = "needs: root"]
fn the_first_process_of_a_pid_namespace_is_restarted() {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "python3", "-c"]);
    command.arg("import os,signal\nprint('START', os.getpid(), flush=True)\nsignal.pause()");
    let mut outer = App::start(&mut command);
    assert_eq!(outer.line("START"), "1");
    let pid = devsync_agent::restart::descendants::of(outer.pid)[0];
    let recorded = devsync_agent::restart::reexec::Recorded::of(pid).expect("records");
    let restart = devsync_agent::restart::reexec::Restart { recorded, ..outer.restart(GRACEFUL) };
    launcher(&[]).restart(pid, start_time(pid), restart).expect("restarts");
    assert_eq!(outer.line("START"), "1");
    assert!(outer.runs());
}

#[test]
fn two_hundred_restarts_leave_nothing_behind() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let exe = directory.path().join("server");
    compile(&exe, "same");
    let port: u16 = free_port().parse().expect("is a number");
    let mut app = App::start(Command::new(&exe).args(["8", &port.to_string()]));
    app.line("START");
    // 0, 1, 2, the listener, the connection, and the directory that it reads.
    let (pid, descriptors) = (app.pid, 6);
    let start = start_time(app.pid);
    let mut micros = Vec::new();
    for round in 0..200 {
        let before = devsync_agent::restart::ready::Listening::of(app.pid).expect("reads");
        assert_eq!(before.ports().collect::<Vec<_>>(), [port]);
        let done = launcher(&[]).restart(app.pid, start, app.restart(GRACEFUL)).expect("restarts");
        micros.push(done.tracer_micros);
        let ready = devsync_agent::restart::ready::wait(app.pid, &before, DEADLINE);
        assert_eq!((ready.ports, ready.missing), (vec![port], vec![]), "round {round}");
        app.line("START same");
        assert_eq!(ask_soon(port), ("same".to_owned(), pid, descriptors), "round {round}");
    }
    assert!(app.runs());
    assert_eq!(zombies_of(app.pid), 0);
    assert_eq!(zombies_of(std::process::id() as i32), 0);
    micros.sort();
    println!("8 threads: tracer p50 {} us, p99 {} us", micros[100], micros[198]);
}

#[test]
fn a_program_whose_directory_was_replaced_starts_in_the_new_one() {
    let parent = tempfile::tempdir().expect("makes a directory");
    let work = parent.path().join("work");
    std::fs::create_dir(&work).expect("makes a directory");
    let code = "import os,signal\nprint('START', os.getcwd(), os.listdir('.'), flush=True)\nsignal.pause()";
    let mut app = App::start(Command::new("python3").args(["-c", code]).current_dir(&work));
    app.line("START");
    let restart = app.restart(GRACEFUL);
    std::fs::remove_dir(&work).expect("removes");
    std::fs::create_dir(&work).expect("makes it again");
    std::fs::write(work.join("new"), b"").expect("writes");
    launcher(&[]).restart(app.pid, start_time(app.pid), restart).expect("restarts");
    assert_eq!(app.line("START"), format!("{} ['new']", work.display()));
    assert!(app.runs());
}
