//! Python: the app's own interpreter has debugpy attach to the app, which then has an adapter listening beside it; an
//! editor here reaches that through the agent.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use devsync_protocol::debug::Debuggee;
use devsync_protocol::process::{self, Process};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Session, listen, note, serve, write};
use crate::beside::Beside;
use crate::cli::{DebugArgs, Output};
use crate::commands::{say, say_json};
use crate::config::Config;
use crate::connect::Route;
use crate::debug::{debugpy, launch};
use crate::error::{CommandError, Kind};
use crate::in_container;
use crate::program::End;

/// From the end of debugpy's attach to the adapter's listening.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Of what debugpy said when it failed.
const LAST_LINES: usize = 5;

pub(super) async fn run(
    args: &DebugArgs,
    route: &Route,
    beside: Beside,
    app: Debuggee,
    (config, project): (&Config, &Path),
) -> Result<ExitCode, CommandError> {
    let inside = start(args, route, &beside, &app).await?;
    let words = vec!["--port".to_owned(), inside.to_string()];
    let remote = app.cwd.clone().filter(|cwd| cwd != "/");
    let session = Session { beside, app, words };
    if args.stdio {
        return session.on_stdio().await;
    }
    let (listener, port) = listen(args.port).await?;
    let (local, remote) = mapping(config, remote);
    let configuration = launch::debugpy(&route.name(), port, &local, remote.as_deref());
    if args.write {
        write(args, project, std::slice::from_ref(&configuration))?;
    }
    announce(args, &session, port, &configuration)?;
    serve::run(args, session, listener).await
}

/// Which directory here is which of the app's: as devsync.toml has it, else the app's working directory.
fn mapping(config: &Config, cwd: Option<String>) -> (String, Option<String>) {
    let folder = || "${workspaceFolder}".to_owned();
    match config.sync.first() {
        Some(spec) if spec.from == Path::new(".") => (folder(), spec.to.clone().or(cwd)),
        Some(spec) => (format!("{}/{}", folder(), spec.from.display()), spec.to.clone().or(cwd)),
        None => (folder(), cwd),
    }
}

/// The port beside the app on which debugpy's adapter listens; it is attached where it is not yet.
async fn start(
    args: &DebugArgs,
    route: &Route,
    beside: &Beside,
    app: &Debuggee,
) -> Result<u16, CommandError> {
    let all = processes(beside).await?;
    if let Some(port) = debugpy::adapter(app, &all) {
        note(args, &format!("debugpy is in the app already: port {port} beside it"));
        return Ok(port);
    }
    let what =
        || CommandError::new(format!("debugpy cannot be attached in {} (pid {})", beside.name, app.pid));
    let python = debugpy::interpreter(app, &all);
    let probe = [&python, "-c", debugpy::PROBE].map(str::to_owned).to_vec();
    let (end, said) = in_container::ask(route, probe).await?;
    if end != End::Exit(0) {
        return Err(what().cause(format!("its interpreter {python} cannot be run: {}", last(&said))));
    }
    if let Some((cause, hint)) = debugpy::lacks(&said) {
        let hint = hint.replace("TARGET", &route.name()).replace("PYTHON", &python);
        return Err(what().cause(cause).hint(hint));
    }
    let no_port = || what().cause("no port from 5678 on is free beside it");
    let (port, pid) = (debugpy::free_port(&all).ok_or_else(no_port)?, app.pid.to_string());
    let listen = format!("127.0.0.1:{port}");
    let attach = [&python, "-m", "debugpy", "--listen", &listen, "--pid", &pid].map(str::to_owned).to_vec();
    let (end, said) = in_container::ask(route, attach).await?;
    if end != End::Exit(0) {
        let hint =
            "may it trace there? devsync doctor says; or start the app with python -m debugpy --listen";
        return Err(what().cause(format!("it ended with {}: {}", end.code(), last(&said))).hint(hint));
    }
    let deadline = Instant::now() + LISTENS_WITHIN;
    while Instant::now() < deadline {
        if let Some(port) = debugpy::adapter(app, &processes(beside).await?) {
            return Ok(port);
        }
        sleep(PAUSE).await;
    }
    let cause = format!("its adapter did not come: {}", last(&said));
    Err(what().cause(cause).hint("the app's own output may say why: devsync logs"))
}

async fn processes(beside: &Beside) -> Result<Vec<Process>, CommandError> {
    let words: &[&str] = if beside.is_here() { &[] } else { &["--all"] };
    let told = beside.ask("ps", words).await?;
    let (all, _) = process::parse_all(&told).map_err(|error| {
        CommandError::of(error).kind(Kind::Version).hint("the agent and this devsync must be of one release")
    })?;
    Ok(all)
}

fn last(said: &[String]) -> String {
    let from = said.len().saturating_sub(LAST_LINES);
    said.get(from..).unwrap_or_default().join("\n")
}

fn announce(
    args: &DebugArgs,
    session: &Session,
    port: u16,
    configuration: &Value,
) -> Result<(), CommandError> {
    let app = &session.app;
    if args.output.output == Output::Json {
        return say_json(&serde_json::json!({
            "event": "listening", "pid": app.pid, "exe": app.exe, "port": port, "configuration": configuration,
        }));
    }
    if args.output.quiet {
        return Ok(());
    }
    say(&format!(
        "{} in {}: pid {}; debugpy waits for an editor on 127.0.0.1:{port}",
        app.exe, session.beside.name, app.pid
    ))?;
    if !args.write {
        say("for .vscode/launch.json (--write puts it there):")?;
        say(&crate::report::json_pretty(configuration))?;
    }
    Ok(())
}
