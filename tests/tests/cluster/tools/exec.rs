//! `devsync exec` in a pod: the program's streams and its exit status, and the tests of a project in CI.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::project::Project;
use devsync_tests::demo::project::Language;

use super::in_namespace;

const PYTEST: [&str; 6] = ["exec", "deploy/demo", "--", "pytest", "-q", "-pno:cacheprovider"];

#[test]
#[ignore = "needs: cluster"]
fn a_failing_test_is_mended_on_the_laptop_without_a_rebuild() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let once = ["attach", "deploy/demo", "--once", "--yes"];
        project.save(" (broken)")?;
        namespace.run(&project, &once)?.code(0)?;
        let failed = namespace.run(&project, &PYTEST)?.code(1)?;
        ensure!(failed.out.contains("1 failed") && failed.out.contains("(broken)"), "{failed:?}");
        project.save("")?;
        namespace.run(&project, &once)?.code(0)?;
        let passed = namespace.run(&project, &PYTEST)?.code(0)?;
        ensure!(passed.out.contains("1 passed"), "{passed:?}");
        ensure!(namespace.pod("demo")? == pod && namespace.restarts("demo")? == 0, "the pod was replaced");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn the_exit_status_is_the_programs_and_255_is_devsyncs() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Absent).to_string(), "demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let run = |script: &str| namespace.run(&project, &["exec", "deploy/demo", "--", "sh", "-c", script]);
        let said = run("echo out; echo err >&2; exit 3")?.code(3)?;
        ensure!((said.out.as_str(), said.err.as_str()) == ("out\n", "err\n"), "{said:?}");
        run("kill -9 $$")?.code(137)?;
        // In the app's own world: its user, its directory, and as much output as it likes.
        let said = run("id -u; pwd")?.code(0)?;
        ensure!(said.out == "65532\n/app\n", "{said:?}");
        let said = run("head -c 3000000 /dev/zero")?.code(0)?;
        ensure!(said.out.len() == 3_000_000, "{} bytes came", said.out.len());
        let exec = |words: &[&str]| namespace.run(&project, &[&["exec"], words].concat());
        exec(&["deploy/demo", "--", "no-such-program"])?.code(255)?.says(&["no-such-program", "hint:"])?;
        exec(&["deploy/absent", "--", "true"])?.code(255)?.says(&["absent"])?;
        exec(&["deploy/demo"])?.code(255)?;
        exec(&["deploy/demo", "-t", "--", "true"])?.code(255)?.says(&["no terminal", "hint:"])?;
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn standard_input_reaches_the_program_to_its_end() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let mut command = namespace.command(&project, &["exec", "-i", "deploy/demo", "--", "wc", "-c"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("piped")?.write_all(&vec![b'x'; 1_000_000])?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(String::from_utf8_lossy(&output.stdout).trim() == "1000000", "{output:?}");
        Ok(())
    })
}
