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

const LOOK: &str =
    "id -u; pwd; ls /; ls /app; cat /etc/hostname; ps; wget -q -O - http://127.0.0.1:8080/add/2/3; exit 7\n";

fn looks_around(namespace: &Namespace) -> Result<()> {
    namespace.deploy(&manifests::demo(manifests::RUST, 1, Agent::Absent).to_string(), "demo")?;
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    // Nothing is changed in a pod for a shell that it has not.
    script(namespace, &project, LOOK)?.refused(&["has no shell, and no agent", "--toolbox"])?;
    let words = ["attach", "deploy/demo", "--agent-image", TOOLBOX_IMAGE, "--once", "--yes"];
    namespace.run(&project, &words)?.code(0)?;
    let pod = namespace.pod("demo")?;
    let said = script(namespace, &project, LOOK)?.code(7)?;
    let hostname = format!("\nadder\n{pod}\n");
    for word in ["65532\n/app\napp\n", &hostname, "/app/adder", "devsync-agent serve", "2 + 3 = 5"] {
        ensure!(said.out.contains(word), "no {word:?} in {said:?}");
    }
    // The toolbox and the agent's state are no part of what is seen.
    ensure!(!said.out.contains("toolbox"), "{said:?}");
    ensure!(namespace.pod("demo")? == pod && namespace.restarts("demo")? == 0, "the pod was replaced");
    Ok(())
}

/// As for Rust: nothing of the app's is needed.
fn go_too(namespace: &Namespace) -> Result<()> {
    let demo = manifests::with_toolbox(manifests::demo(manifests::GO, 1, Agent::Baseline));
    namespace.deploy(&demo.to_string(), "demo")?;
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    let text = "ls /; cat /etc/hostname; ps; wget -q -O - http://127.0.0.1:8080/add/2/3; exit 7\n";
    let said = script(namespace, &project, text)?.code(7)?;
    let hostname = namespace.pod("demo")?;
    for word in ["\netc\n", &format!("\n{hostname}\n"), "devsync-agent serve", "2 + 3 = 5"] {
        ensure!(said.out.contains(word), "no {word:?} in {said:?}");
    }
    Ok(())
}

fn is_replaced(namespace: &Namespace) -> Result<()> {
    namespace.deploy(&manifests::demo(manifests::RUST, 1, Agent::Absent).to_string(), "demo")?;
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    let attach = |image: &str| {
        namespace.run(&project, &["attach", "deploy/demo", "--agent-image", image, "--once", "--yes"])
    };
    attach(manifests::AGENT_IMAGE)?.code(0)?;
    let pod = namespace.pod("demo")?;
    script(namespace, &project, LOOK)?.says(&["no shell", "toolbox", "hint:"])?;
    let same = attach(manifests::AGENT_IMAGE)?.code(0)?;
    ensure!(!same.err.contains("replaced") && namespace.pod("demo")? == pod, "{same:?}");
    attach(TOOLBOX_IMAGE)?.code(0)?.says(&[manifests::AGENT_IMAGE, "it is replaced by", TOOLBOX_IMAGE])?;
    ensure!(namespace.pod("demo")? != pod, "the pod is the same");
    script(namespace, &project, LOOK)?.code(7)?;
    // An image that does not come leaves the agent that was there.
    let absent = attach("localhost/devsync-absent:dev")?.refused(&["devsync-absent"])?;
    namespace.rolled_out("demo")?;
    script(namespace, &project, LOOK)?.code(7)?;
    ensure!(absent.err.contains("put back"), "{absent:?}");
    namespace.run(&project, &["detach", "deploy/demo"])?.code(0)?;
    Ok(())
}

/// A look around from beside an app, where `/` is the agent's.
const LOOK_BESIDE: &str = "[ \"$(pwd)\" = \"$DEVSYNC_ROOT\" ] && echo there; ls; ls app; head -c 4 app/adder | tail -c 3; \
                           echo; cd app; ls; id -u; [ -e devsync-agent ] || [ -e ../devsync-agent ] || echo of the app; \
                           [ -e /devsync-agent ] && echo beside; ps; wget -q -O - http://127.0.0.1:8080/add/2/3; exit 7\n";

fn is_beside(namespace: &Namespace) -> Result<()> {
    let demo = manifests::with_toolbox(manifests::demo(manifests::RUST, 1, Agent::Restricted));
    namespace.deploy(&demo.to_string(), "demo")?;
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    let said = script(namespace, &project, LOOK_BESIDE)?.code(7)?;
    let said = said.says(&[
        "note: the agent may not enter the app's root",
        "no shell of its own",
        "beside the app",
    ])?;
    ensure!(said.err.lines().count() == 1, "{said:?}");
    for word in ["there\napp\n", "adder\nELF\nadder\n65532\nof the app\nbeside\n", "/app/adder", "2 + 3 = 5"]
    {
        ensure!(said.out.contains(word), "no {word:?} in {said:?}");
    }
    // Nothing else leads there.
    let exec = namespace.run(&project, &["exec", "deploy/demo", "--", "ls", "/"])?.code(255)?;
    ensure!(exec.out.is_empty(), "{exec:?}");
    exec.says(&["SYS_CHROOT", "devsync shell"])?;
    Ok(())
}

fn is_the_apps_own(namespace: &Namespace, agent: Agent) -> Result<()> {
    namespace.deploy(&manifests::demo(manifests::PYTHON, 1, agent).to_string(), "demo")?;
    let project = Project::copy(Language::Python, namespace.path("adder"))?;
    let text = "pwd; id -u; test -e /devsync-agent || echo own; cat; (exit 9)";
    let said = script(namespace, &project, text)?.code(9)?;
    ensure!(said.out == "/app\n65532\nown\n", "{said:?}");
    match agent {
        Agent::Restricted => {
            drop(said.says(&["may not enter the app's root", "sh of container app, through pods/exec"])?)
        }
        _ => ensure!(said.err.is_empty(), "{said:?}"),
    }
    // One that is not whole is said by the shell itself.
    let broken = script(namespace, &project, "echo 'never closed")?;
    ensure!(broken.code == Some(2) && broken.out.is_empty(), "{broken:?}");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn where_the_agent_is_restricted_an_app_without_a_shell_has_one_beside_it() -> Result<()> {
    in_namespace(is_beside)
}

#[test]
#[ignore = "needs: cluster"]
fn where_the_agent_is_restricted_an_app_has_its_own_shell() -> Result<()> {
    in_namespace(|namespace| is_the_apps_own(namespace, Agent::Restricted))
}

#[test]
#[ignore = "needs: cluster"]
fn without_an_agent_an_app_has_its_own_shell() -> Result<()> {
    in_namespace(|namespace| is_the_apps_own(namespace, Agent::Absent))
}

#[test]
#[ignore = "needs: cluster"]
fn an_agent_without_tools_is_replaced_and_that_is_said() -> Result<()> {
    in_namespace(is_replaced)
}

#[test]
#[ignore = "needs: cluster"]
fn an_agent_of_somebody_else_stays_and_that_is_said() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::RUST, 1, Agent::Baseline).to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Rust, namespace.path("adder"))?;
        let words = ["attach", "deploy/demo", "--agent-image", TOOLBOX_IMAGE, "--once", "--yes"];
        namespace.run(&project, &words)?.code(0)?.says(&["stays", manifests::AGENT_IMAGE, "hint:"])?;
        ensure!(namespace.pod("demo")? == pod, "the pod was replaced");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn an_app_from_scratch_has_a_shell_in_its_own_root() -> Result<()> {
    in_namespace(looks_around)
}

#[test]
#[ignore = "needs: cluster"]
fn a_go_app_from_scratch_has_one_too() -> Result<()> {
    in_namespace(go_too)
}
