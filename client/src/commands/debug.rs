//! `devsync debug`: a debugger's protocol between a port here and a debugger beside the app.

mod debugpy;
mod gdb;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use devsync_protocol::debug::Debuggee;
use serde_json::Value;
use tokio::net::TcpListener;

use super::{say, say_json};
use crate::beside::Beside;
use crate::cli::{DebugArgs, Output};
use crate::debug::symbols::{Fit, SymbolsError};
use crate::debug::{Language, delve, launch, probes, symbols};
use crate::error::{CommandError, Kind};
use crate::program::{self, End};
use crate::settings;

/// What delve's users are used to.
const PORT: u16 = 2345;

pub async fn run(args: &DebugArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let route = settings::needed_route(&args.target, &config, &project, "debug deploy/demo")?;
    let beside = Beside::find(&route).await?;
    let app = look(&beside).await?;
    free(&beside, &app)?;
    if args.debugger.is_none() && !args.strace {
        understood(&beside, &app)?;
    }
    let is_python = Language::of(&app) == Language::Python && !args.strace;
    let symbols = args.symbols.clone().or_else(|| config.exe.as_ref().map(|exe| project.join(exe)));
    let symbols = symbols.filter(|_| !is_python);
    let symbols = fitting(symbols, args.symbols.is_some(), &app)?;
    if let Some(warning) = beside.container().and_then(probes::warning) {
        note(args, &format!("{warning}; the annotation devsync.dev/probes: relax gives it time"));
    }
    if args.strace {
        let program = beside.start("debug", &["strace"]).await?;
        return match program.watch().await? {
            // As it ends where it was interrupted.
            End::Exit(130) => Ok(ExitCode::SUCCESS),
            End::Signal(name) if name == "INT" => Ok(ExitCode::SUCCESS),
            End::Missing(why) => Err(CommandError::new("strace cannot be started").cause(why)),
            end => Ok(program::exit(&end)),
        };
    }
    if is_python && (args.stacks || args.core.is_some()) {
        return Err(CommandError::usage(
            "it is a Python program, and a native debugger would show the interpreter",
        )
        .hint("devsync debug without --stacks and --core attaches debugpy"));
    }
    if args.stacks || args.core.is_some() {
        return gdb::run(args, symbols.as_deref()).await;
    }
    if is_python {
        return debugpy::run(args, &route, beside, app, (&config, &project)).await;
    }
    let session = Session { beside, app, words: words(args)? };
    if args.stdio {
        return session.on_stdio().await;
    }
    let (listener, port) = listen(args.port).await?;
    if args.write {
        let all = launch::configurations(&route.name(), session.language(), port, symbols.as_deref());
        write(args, &project, &all)?;
    }
    announce(args, &session, port, symbols.as_deref())?;
    serve::run(args, session, listener).await
}

/// A debugger that can be started for the app.
struct Session {
    beside: Beside,
    app: Debuggee,
    words: Vec<String>,
}

impl Session {
    fn language(&self) -> Language {
        Language::of(&self.app)
    }

    async fn start(&self) -> Result<program::Program, CommandError> {
        // For Python the adapter's port: its debugger is in the app already.
        let words: Vec<&str> =
            [self.language().tool()].into_iter().chain(self.words.iter().map(String::as_str)).collect();
        self.beside.start("debug", &words).await
    }

    /// Its protocol on our own streams, for a debugger that starts us.
    async fn on_stdio(&self) -> Result<ExitCode, CommandError> {
        let program = self.start().await?;
        program.carry(false).await.map(|end| program::exit(&end))
    }
}

/// Adds configurations for VS Code; shows what cannot be added.
fn write(args: &DebugArgs, project: &Path, all: &[Value]) -> Result<(), CommandError> {
    for configuration in all {
        let file = launch::write(project, configuration).map_err(|error| {
            let text = serde_json::to_string_pretty(configuration).unwrap_or_default();
            CommandError::of(error).hint(format!("add the configuration by hand:\n{text}"))
        })?;
        let name = configuration["name"].as_str().unwrap_or_default();
        note(args, &format!("{} has the configuration \"{name}\"", crate::dirs::near(&file)));
    }
    Ok(())
}

fn words(args: &DebugArgs) -> Result<Vec<String>, CommandError> {
    let Some(file) = &args.debugger else { return Ok(Vec::new()) };
    let file = std::fs::canonicalize(file)
        .map_err(|error| CommandError::usage(format!("--debugger {}", file.display())).cause(error))?;
    Ok(vec!["--debugger".to_owned(), file.to_string_lossy().into_owned()])
}

async fn look(beside: &Beside) -> Result<Debuggee, CommandError> {
    let told = beside.ask("debug", &["look"]).await?;
    told.parse().map_err(|error: devsync_protocol::debug::DebuggeeError| {
        CommandError::of(error).kind(Kind::Version).hint("the agent and this devsync must be of one release")
    })
}

/// Says what stands in the way before anything is stopped.
fn free(beside: &Beside, app: &Debuggee) -> Result<(), CommandError> {
    let what = format!("the app in {} (pid {}) cannot be debugged", beside.name, app.pid);
    if let Some((pid, name)) = &app.tracer {
        return Err(CommandError::new(what)
            .cause(format!("{name} (pid {pid}) holds it already"))
            .hint("let that debugger detach first"));
    }
    if let Some((cause, hint)) = &app.refused {
        return Err(CommandError::new(what).cause(cause.clone()).hint(hint.clone()));
    }
    if Language::of(app) == Language::Python {
        return Ok(());
    }
    let (tool, language) = match Language::of(app) {
        Language::Go => ("dlv", "Go"),
        _ => ("gdbserver", "a native program"),
    };
    if !app.tools.iter().any(|has| has == tool) {
        let hint = match (beside.pod(), beside.is_here()) {
            (Some(_), _) => {
                "devsync attach --toolbox --once: an agent that has it takes its place".to_owned()
            }
            (None, true) => format!("install {tool} on this machine"),
            (None, false) => "DEVSYNC_TOOLBOX_IMAGE names an image without it".to_owned(),
        };
        let cause = format!("it is {language}, and there is no {tool} beside it");
        return Err(CommandError::new(what).cause(cause).hint(hint));
    }
    Ok(())
}

/// Says beforehand where the app's Go is newer than the delve beside it.
fn understood(beside: &Beside, app: &Debuggee) -> Result<(), CommandError> {
    let (Some(delve), Some(go)) = (&app.delve, &app.go) else { return Ok(()) };
    if delve::understands(delve, go) {
        return Ok(());
    }
    let hint = match beside.is_here() {
        true => "--debugger FILE names a newer delve",
        false => "an agent's image with a newer delve: devsync attach --agent-image IMAGE --once",
    };
    Err(CommandError::new(format!("the app in {} (pid {}) cannot be debugged", beside.name, app.pid))
        .cause(format!("it was built with {go}, and delve {delve} beside it is older than that"))
        .hint(hint))
}

/// The file with the symbols, if it is of the same build; a file that nobody named on the command line may be another.
fn fitting(file: Option<PathBuf>, named: bool, app: &Debuggee) -> Result<Option<PathBuf>, CommandError> {
    let Some(file) = file else { return Ok(None) };
    match symbols::check(&file, &app.build_id) {
        Ok(fit) => {
            if fit == Fit::Unknown {
                eprintln!("note: {} or the app has no build id: whether they fit is not known", file.display());
            }
            Ok(Some(std::path::absolute(&file).unwrap_or(file)))
        }
        Err(SymbolsError::Read { .. } | SymbolsError::NoElf { .. }) if !named => Ok(None),
        Err(error @ SymbolsError::OtherBuild { .. }) => Err(CommandError::of(error).hint(
            "devsync attach --once puts the build that is here into the pod; or name the right file: --symbols FILE",
        )),
        Err(error) => {
            Err(CommandError::of(error).kind(Kind::Usage).hint("--symbols names the unstripped executable"))
        }
    }
}

/// On the loopback here, with the port that it became.
async fn listen(port: Option<u16>) -> Result<(TcpListener, u16), CommandError> {
    let at = |port| TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port));
    let bound = match port {
        Some(port) => at(port).await,
        None => match at(PORT).await {
            Ok(listener) => Ok(listener),
            Err(_) => at(0).await,
        },
    };
    let known = bound.and_then(|listener| {
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    });
    known.map_err(|error| {
        CommandError::new(format!("port {} here cannot be listened on", port.unwrap_or(PORT)))
            .cause(error)
            .hint("--port names another")
    })
}

fn note(args: &DebugArgs, text: &str) {
    if !args.output.quiet && !args.stdio {
        eprintln!("{}", crate::report::plain_line(text));
    }
}

fn announce(
    args: &DebugArgs,
    session: &Session,
    port: u16,
    symbols: Option<&Path>,
) -> Result<(), CommandError> {
    let app = &session.app;
    let file = symbols.map(|path| path.to_string_lossy().into_owned());
    let commands = commands(session.language(), file.as_deref().unwrap_or("FILE"), port);
    if args.output.output == Output::Json {
        return say_json(&serde_json::json!({
            "event": "listening", "pid": app.pid, "exe": app.exe, "go": app.go, "port": port,
            "command": commands.first(), "commands": commands, "build_id": app.build_id.shown(), "symbols": file,
        }));
    }
    if args.output.quiet {
        return Ok(());
    }
    let build = app.build_id.shown().map(|id| format!(", build id {id}")).unwrap_or_default();
    let go = app.go.as_ref().map(|go| format!(", {go}")).unwrap_or_default();
    say(&format!("{} in {}: pid {}{build}{go}", app.exe, session.beside.name, app.pid))?;
    if session.language() == Language::Native && symbols.is_none() {
        say("no symbols: --symbols names the unstripped executable of this build")?;
    }
    say(&commands.join("\n"))
}

/// For the debuggers that can be used.
fn commands(language: Language, file: &str, port: u16) -> Vec<String> {
    if language == Language::Go {
        return vec![format!("dlv connect 127.0.0.1:{port}")];
    }
    vec![
        format!("gdb {file} -ex 'target remote 127.0.0.1:{port}'"),
        format!("lldb {file} -o 'gdb-remote 127.0.0.1:{port}'"),
    ]
}
