//! Restarts of real programs in place: what they keep, what they lose, and who notices.

mod reexec_support;

use std::process::Command;
use std::time::Duration;

use devsync_agent::restart::reexec::Style;
use devsync_protocol::restart::Ending;
use reexec_support::*;

const GRACEFUL: Style = Style::Graceful { grace: Duration::from_secs(10) };

fn server(threads: usize) -> (tempfile::TempDir, App, u16) {
    let directory = tempfile::tempdir().expect("makes a directory");
    let exe = directory.path().join("server");
    compile(&exe, "old");
    let app = App::start(Command::new(&exe).args([&threads.to_string(), "0"]));
    let port = app.line("START old").split(' ').nth(1).expect("has a port").parse().expect("is a number");
    (directory, app, port)
}

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
