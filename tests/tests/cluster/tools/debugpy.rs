//! `devsync debug` on a Python program in a pod whose image has neither debugpy nor gdb: both are synced.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::cluster::said::Said;
use devsync_tests::debugger::editor::Editor;
use devsync_tests::debugger::{Debug, debugpy, line_of};
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::in_namespace;

const APP: &str = "import os, time
def step(n):
    total = n * 2
    return total
n = 0
while True:
    n += 1
    step(n)
    open('/tmp/count', 'w').write(f'{os.getpid()} {n}')
    time.sleep(0.02)
";
/// Starts what an attach brings.
const WAITS: &str = "until test -f /app/app.py; do sleep 0.1; done; exec python3 -B app.py";
const GDB: &str = "#!/bin/sh
own=$(dirname \"$0\")/gdb.d
exec \"$own\"/ld-linux-x86-64.so.2 --library-path \"$own\" \"$own\"/gdb --data-directory=\"$own\"/share \"$@\"
";

/// This machine's gdb with its libraries, in a directory that works anywhere.
fn gdb(into: &Path) -> Result<()> {
    let own = into.join("gdb.d");
    fs::create_dir_all(&own)?;
    let listed = Command::new("ldd").arg("/usr/bin/gdb").output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let files = listed.split_whitespace().filter(|word| word.starts_with('/')).chain(["/usr/bin/gdb"]);
    for file in files {
        fs::copy(file, own.join(Path::new(file).file_name().context("a name")?))?;
    }
    let copied = Command::new("cp").args(["-rL", "/usr/share/gdb"]).arg(own.join("share")).status()?;
    ensure!(copied.success(), "cp: {copied}");
    fs::write(into.join("gdb"), GDB)?;
    fs::set_permissions(into.join("gdb"), fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// debugpy alone, out of the environment that has it.
fn library(into: &Path) -> Result<()> {
    let from = debugpy()?.join("lib/python3.11/site-packages/debugpy");
    fs::create_dir_all(into)?;
    let copied = Command::new("cp").arg("-r").arg(&from).arg(into).status()?;
    ensure!(copied.success(), "{}: {copied}", from.display());
    Ok(())
}

fn sync(from: PathBuf, to: &str) -> String {
    format!("{}:{to}", from.display())
}

/// The process id and the count of the app.
fn count(namespace: &Namespace, pod: &str) -> Result<String> {
    namespace.kubectl.run(&["exec", pod, "-c", "app", "--", "cat", "/tmp/count"])
}

fn stops_at_a_line(namespace: &Namespace) -> Result<()> {
    let mut demo = manifests::demo(manifests::PYTHON, 1, Agent::Baseline);
    let app = &mut demo["spec"]["template"]["spec"]["containers"][0];
    app["command"] = json!(["sh", "-c", WAITS]);
    app["readinessProbe"] = Value::Null;
    namespace.deploy(&demo.to_string(), "demo")?;
    let pod = namespace.pod("demo")?;
    let project = Project::copy(Language::Python, namespace.path("adder"))?;
    fs::write(project.dir.join("app.py"), APP)?;
    let (tools, site) = (namespace.path("tools"), namespace.path("site"));
    let attach = |more: &[String]| {
        let mut words = vec!["attach", "deploy/demo", "--once", "--yes", "--restart", "none"];
        more.iter().for_each(|spec| words.extend(["--sync", spec]));
        namespace.run(&project, &words)?.code(0)
    };
    let own = sync(project.dir.clone(), "/app");
    attach(std::slice::from_ref(&own))?;
    namespace.until("an app that counts", || Ok(count(namespace, &pod).ok()))?;
    // Without them, what is missing is said, with what brings it.
    let refused = || namespace.run(&project, &["debug", "deploy/demo"]);
    refused()?.refused(&["debugpy is not there", "pip install debugpy", "devsync exec deploy/demo"])?;
    library(&site)?;
    let site = sync(site, "/usr/local/lib/python3.11/dist-packages");
    attach(&[own.clone(), site.clone()])?;
    refused()?.refused(&["with gdb", "apt-get install gdb"])?;
    gdb(&tools)?;
    attach(&[own, site, sync(tools, "/usr/local/bin")])?;
    let words = Debug::words("deploy/demo", &["--write"]);
    let debug = Debug::start(namespace.command(&project, &words))?;
    let launch: Value = serde_json::from_slice(&fs::read(project.dir.join(".vscode/launch.json"))?)?;
    let ours = &launch["configurations"][0];
    ensure!(ours["pathMappings"][0]["remoteRoot"] == "/app", "{launch}");
    ensure!(ours["connect"]["port"] == debug.port, "{launch}");
    let line = line_of(&project.dir.join("app.py"), "return total")?;
    let mut editor = Editor::connect(debug.port)?;
    ensure!(editor.stop_at(Path::new("/app/app.py"), line, "total == n * 2")? == "True");
    let stopped = count(namespace, &pod)?;
    editor.ask("disconnect", &json!({"terminateDebuggee": false}))?;
    drop(editor);
    debug.ends_well()?;
    namespace.until("an app that runs on", || {
        let now = count(namespace, &pod)?;
        Ok((now != stopped && !now.is_empty()).then_some(()))
    })?;
    let first = |text: &str| text.split(' ').next().map(str::to_owned);
    ensure!(first(&count(namespace, &pod)?) == first(&stopped), "it is another process");
    ensure!(namespace.restarts("demo")? == 0, "a container was started again");
    Said::by(namespace.command(&project, &["ps", "deploy/demo"]))?.code(0).map(drop)
}

#[test]
#[ignore = "needs: cluster, debugpy"]
fn debugpy_stops_at_a_line_of_a_program_in_a_pod() -> Result<()> {
    in_namespace(stops_at_a_line)
}
