//! A large executable through port-forward: progress, and an agent that stays small.

use std::fs::{self, File};
use std::io::{Read, copy};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::cluster::said::Said;
use devsync_tests::demo::project::Language;
use serde_json::json;

use super::in_namespace;

/// Of what does not compress.
const PADDING: u64 = 200 * 1024 * 1024;
/// The agent's budget for its resident memory, in KiB.
const BUDGET: u64 = 64 * 1024;
/// In any container of the pod: each agent's peak.
const PEAK: &str = "import pathlib
for p in pathlib.Path('/proc').iterdir():
    try:
        if p.name.isdigit() and (p / 'comm').read_text() == 'devsync-agent\\n':
            print([l.split()[1] for l in (p / 'status').read_text().splitlines() if l.startswith('VmHWM')][0])
    except OSError: pass";

/// A container beside the app in which a test can look around.
fn with_a_looker() -> serde_json::Value {
    let mut demo = manifests::demo(manifests::RUST, 1, Agent::Baseline);
    let looker = json!({"name": "looker", "image": manifests::PYTHON, "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "1000"], "securityContext": {"runAsUser": 0}});
    if let Some(containers) = demo["spec"]["template"]["spec"]["containers"].as_array_mut() {
        containers.push(looker);
    }
    demo
}

/// The demo's program after a save, with a section of random bytes.
fn build(namespace: &Namespace, project: &Project) -> Result<std::path::PathBuf> {
    project.save(" (large)")?;
    let mut cargo = Command::new("cargo");
    project.settings(&mut cargo);
    let target = namespace.path("target");
    let built = cargo.args(["build", "--quiet", "--locked", "--offline"]).current_dir(&project.dir);
    ensure!(built.env("CARGO_TARGET_DIR", &target).status().context("start cargo")?.success(), "cargo build");
    let (padding, large) = (namespace.path("padding"), namespace.path("large"));
    copy(&mut File::open("/dev/urandom")?.take(PADDING), &mut File::create(&padding)?)?;
    fs::create_dir(&large)?;
    let large = large.join("adder");
    let mut objcopy = Command::new("objcopy");
    objcopy.arg("--add-section").arg(format!(".padding={}", padding.display()));
    let program = find(&target)?;
    ensure!(objcopy.arg(program).arg(&large).status().context("start objcopy")?.success(), "objcopy");
    fs::remove_file(padding)?;
    Ok(large)
}

/// `adder` below a target directory, which may be that of another triple.
fn find(target: &Path) -> Result<std::path::PathBuf> {
    let mut dirs = vec![target.to_owned()];
    while let Some(dir) = dirs.pop() {
        let program = dir.join("debug/adder");
        if program.is_file() {
            return Ok(program);
        }
        dirs.extend(fs::read_dir(dir)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    }
    anyhow::bail!("cargo built no adder in {}", target.display())
}

#[test]
#[ignore = "needs: cluster"]
fn a_large_executable_arrives_with_progress_and_a_small_agent() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&with_a_looker().to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Rust, namespace.path("adder"))?;
        let large = build(namespace, &project)?;
        ensure!(fs::metadata(&large)?.len() > PADDING && large.metadata()?.permissions().mode() & 0o111 != 0);
        let exe = large.to_str().context("a path")?;
        let words = ["attach", "deploy/demo", "-c", "app", "--exe", exe, "--once"];
        // On a terminal of its own, where progress is shown.
        let command = namespace.command(&project, &words);
        let typed: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &typed.join(" "), "/dev/null"]);
        terminal.current_dir(&project.dir).envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        terminal.env("TERM", "xterm");
        let said = Said::by(terminal)?.code(0)?;
        ensure!(said.out.contains("MiB/s") && said.out.contains(" MiB/20"), "no progress in {}", said.out);
        namespace.answers(&pod, QUESTION, &answer(" (large)"))?;
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        let peak = namespace.kubectl.run(&["exec", &pod, "-c", "looker", "--", "python3", "-c", PEAK])?;
        let peak: u64 = peak.lines().filter_map(|line| line.parse().ok()).max().context("an agent")?;
        eprintln!("the agent's peak: {peak} KiB");
        ensure!(peak <= BUDGET, "the agent took {peak} KiB");
        Ok(())
    })
}
