//! `devsync shell` in pods: a prompt in an app's root that has nothing but the app.

use anyhow::{Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent, TOOLBOX_IMAGE};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::cluster::said::Said;
use devsync_tests::demo::project::Language;

use super::in_namespace;

/// `devsync shell` with a script on standard input, as CI has it: without a terminal.
fn script(namespace: &Namespace, project: &Project, text: &str) -> Result<Said> {
    Said::fed(namespace.command(project, &["shell", "deploy/demo"]), text.into())
}

const LOOK: &str = "id -u; pwd; ls /; ls /app; ps; wget -q -O - http://127.0.0.1:8080/add/2/3; exit 7\n";

fn looks_around(namespace: &Namespace) -> Result<()> {
    namespace.deploy(&manifests::demo(manifests::RUST, 1, Agent::Absent).to_string(), "demo")?;
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    // Nothing is changed in a pod for a shell that it has not.
    script(namespace, &project, LOOK)?.refused(&["has no shell, and no agent", "--toolbox"])?;
    let words = ["attach", "deploy/demo", "--agent-image", TOOLBOX_IMAGE, "--once", "--yes"];
    namespace.run(&project, &words)?.code(0)?;
    let pod = namespace.pod("demo")?;
    let said = script(namespace, &project, LOOK)?.code(7)?;
    for word in ["65532\n/app\napp\n", "\nadder\n", "/app/adder", "devsync-agent serve", "2 + 3 = 5"] {
        ensure!(said.out.contains(word), "no {word:?} in {said:?}");
    }
    // The toolbox and the agent's state are no part of what is seen.
    ensure!(!said.out.contains("toolbox"), "{said:?}");
    ensure!(namespace.pod("demo")? == pod && namespace.restarts("demo")? == 0, "the pod was replaced");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn an_app_from_scratch_has_a_shell_in_its_own_root() -> Result<()> {
    in_namespace(looks_around)
}
