//! `devsync debug` on a Python program with the real debugpy, and a client that speaks its protocol (DAP).

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devsync_tests::debugger::editor::Editor;
use devsync_tests::debugger::{Debug, debugpy, line_of};
use serde_json::{Value, json};

use crate::rig::{Rig, both};

const PATIENCE: Duration = Duration::from_secs(60);
const APP: &str = "import time
def step(n):
    total = n * 2
    return total
n = 0
print('ready', flush=True)
while True:
    n += 1
    step(n)
    open('count', 'w').write(str(n))
    time.sleep(0.02)
";

/// The program, in the network of this machine: debugpy listens where the app is.
struct App(Child, PathBuf);

impl App {
    fn start(rig: &Rig, python: &Path) -> Result<App> {
        let dir = rig.path("pod");
        fs::write(dir.join("app.py"), APP)?;
        let mut app = Command::new("setpriv");
        app.args(["--pdeathsig", "KILL", "--"]).arg(python).args(["-B", "app.py"]).current_dir(&dir);
        let mut child = app.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "{line}");
        Ok(App(child, dir))
    }

    fn target(&self) -> String {
        format!("pid/{}", self.0.id())
    }

    /// It counts on.
    fn runs(&self) -> Result<()> {
        let count = || fs::read_to_string(self.1.join("count"));
        let (before, deadline) = (count()?, Instant::now() + PATIENCE);
        while count()? == before {
            ensure!(Instant::now() < deadline, "the app stands at {before}");
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs: root, debugpy"]
fn debugpy_stops_at_a_line_of_a_running_program_and_lets_go() -> Result<()> {
    let rig = Rig::new()?;
    let app = App::start(&rig, &debugpy()?.join("bin/python"))?;
    let (file, target) = (rig.path("pod/app.py"), app.target());
    let line = line_of(&file, "return total")?;
    let debug = Debug::start(rig.command(&Debug::words(&target, &["--write"])))?;
    let launch: Value = serde_json::from_slice(&fs::read(rig.path(".vscode/launch.json"))?)?;
    let ours = &launch["configurations"][0];
    ensure!(ours["type"] == "debugpy" && ours["connect"]["port"] == debug.port, "{launch}");
    ensure!(ours["pathMappings"][0]["remoteRoot"] == rig.path("pod").to_string_lossy().as_ref(), "{launch}");
    let mut editor = Editor::connect(debug.port)?;
    ensure!(editor.stop_at(&file, line, "total == n * 2")? == "True");
    editor.ask("disconnect", &json!({"terminateDebuggee": false}))?;
    drop(editor);
    debug.ends_well()?;
    app.runs()?;
    // A second time debugpy is there already; this editor is lost while the app stands.
    let debug = Debug::start(rig.command(&Debug::words(&target, &[])))?;
    let mut editor = Editor::connect(debug.port)?;
    editor.stop_at(&file, line, "n")?;
    drop(editor);
    debug.ends_well()?;
    app.runs()
}

#[test]
#[ignore = "needs: root"]
fn without_debugpy_what_is_missing_is_said() -> Result<()> {
    let rig = Rig::new()?;
    // Without site-packages there is none.
    let python = rig.path("python3");
    std::os::unix::fs::symlink("/usr/bin/python3", &python)?;
    let bare = Command::new("/usr/bin/python3").args(["-c", "import debugpy"]).output()?;
    ensure!(!bare.status.success(), "this machine's python has debugpy itself");
    let app = App::start(&rig, &python)?;
    let said = rig.command(&["debug", &app.target()]).output()?;
    ensure!(said.status.code() == Some(1), "{}", both(&said));
    for word in ["debugpy is not there", "pip install debugpy", "-m pip"] {
        ensure!(both(&said).contains(word), "{}", both(&said));
    }
    app.runs()
}
