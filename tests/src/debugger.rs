//! `devsync debug` as a test drives it, and the real debuggers that are its clients.

pub mod editor;

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Seconds that a debugger's script may take.
const PATIENCE: &str = "60";

/// A `devsync debug` that listens, and ends with its first debugger.
#[derive(Debug)]
pub struct Debug {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
    pub port: u64,
}

impl Debug {
    /// The words of `devsync` for it.
    pub fn words<'a>(target: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["debug", target, "--once", "-o", "json", "--port", "0"], more].concat()
    }

    /// Starts `devsync` with [`Debug::words`], and waits until it listens.
    pub fn start(mut command: Command) -> Result<Debug> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let events = BufReader::new(child.stdout.take().context("piped")?).lines();
        let mut debug = Debug { child, events, port: 0 };
        let first = debug.event("listening")?;
        debug.port = first["port"].as_u64().with_context(|| format!("a port in {first}"))?;
        Ok(debug)
    }

    pub fn event(&mut self, name: &str) -> Result<Value> {
        loop {
            let line = self.events.next().with_context(|| format!("no event {name}"))??;
            let event: Value = serde_json::from_str(&line)?;
            if event["event"] == name {
                return Ok(event);
            }
        }
    }

    pub fn ends_well(mut self) -> Result<()> {
        self.event("detached")?;
        let status = self.child.wait()?;
        ensure!(status.success(), "debug ended with {status}");
        Ok(())
    }
}

/// Asks again and again, from before a debugger is there until this is dropped; what a stopped app does not answer in
/// time is asked again.
#[derive(Debug)]
pub struct Asking {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Asking {
    pub fn start(mut ask: impl FnMut() + Send + 'static) -> Asking {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                ask();
            }
        });
        Asking { over, thread: Some(thread) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// gdb that does `words`, one after the other, and ends.
pub fn gdb(symbols: &Path, port: u64, words: &[&str]) -> Command {
    let mut gdb = Command::new("timeout");
    gdb.args(["--foreground", PATIENCE, "gdb", "-batch", "-nx", "-iex", "set sysroot", "-ex"]);
    gdb.arg(format!("target remote 127.0.0.1:{port}"));
    gdb.args(words.iter().flat_map(|word| ["-ex", word])).arg(symbols).stdin(Stdio::null());
    gdb
}

/// lldb that does `words` after connecting, one after the other, and ends.
pub fn lldb(symbols: &Path, port: u64, words: &[&str]) -> Command {
    let mut lldb = Command::new("timeout");
    lldb.args(["--foreground", PATIENCE, "lldb", "--no-lldbinit", "--batch", "-o"]);
    lldb.arg(format!("gdb-remote 127.0.0.1:{port}"));
    lldb.args(words.iter().flat_map(|word| ["-o", word])).arg(symbols).stdin(Stdio::null());
    lldb
}

/// Delve that does `words`, one after the other, in a home of its own, and ends without killing the app.
pub fn dlv(home: &Path, port: u64, words: &[&str]) -> Result<Command> {
    let script = home.join("init.dlv");
    fs::write(&script, words.join("\n") + "\n")?;
    let mut dlv = Command::new("timeout");
    dlv.args([PATIENCE, "dlv", "connect"]).arg(format!("127.0.0.1:{port}")).arg("--init").arg(script);
    dlv.env("HOME", home).stdin(Stdio::null());
    Ok(dlv)
}

/// The number of the first line that contains `text`.
pub fn line_of(file: &Path, text: &str) -> Result<usize> {
    let source = fs::read_to_string(file)?;
    let line = source.lines().position(|line| line.contains(text));
    Ok(line.with_context(|| format!("no {text:?} in {}", file.display()))? + 1)
}

/// The Python environment with debugpy that `scripts/debugpy` makes.
pub fn debugpy() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let environment = cache.context("HOME")?.join("devsync/debugpy");
    ensure!(
        environment.join("bin/python").exists(),
        "{} is missing (hint: scripts/debugpy)",
        environment.display()
    );
    Ok(environment)
}
