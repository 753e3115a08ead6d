//! `devsync debug` in pods made FROM scratch: real debuggers here, theirs beside the app, and the API server between.

use std::process::Output;
use std::time::Instant;

use anyhow::{Result, ensure};
use devsync_protocol::contract;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::{Namespace, PATIENCE};
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::cluster::said::Said;
use devsync_tests::debugger::{Asking, Debug, dlv, gdb, line_of};
use devsync_tests::demo::project::Language;

use super::in_namespace;

/// What is asked while the debugger waits; the kubelet's own questions are others.
const ASKED: &str = "/add/40/2";

struct Session<'a> {
    namespace: &'a Namespace,
    project: Project,
    pod: String,
    process: String,
}

impl<'a> Session<'a> {
    /// Puts what is built here into a pod whose agent has the tools.
    fn new(
        namespace: &'a Namespace,
        project: Project,
        image: &str,
        agent: Agent,
        build: &[&str],
    ) -> Result<Self> {
        let demo = manifests::with_toolbox(manifests::demo(image, 1, agent));
        namespace.deploy(&demo.to_string(), "demo")?;
        let words = [&["attach", "deploy/demo", "--once"], build].concat();
        namespace.run(&project, &words)?.code(0)?;
        let pod = namespace.pod("demo")?;
        let mut this = Self { namespace, project, pod, process: String::new() };
        this.process = this.look()?;
        Ok(this)
    }

    /// What the agent says of the app's process.
    fn look(&self) -> Result<String> {
        let of = ["exec", &self.pod, "-c", contract::AGENT_CONTAINER, "--", contract::AGENT_PROGRAM];
        let words = [&of[..], &["debug", "look"]].concat();
        Ok(Said::by(self.namespace.kubectl.command(&words))?.code(0)?.out)
    }

    fn debug(&self, words: &[&str]) -> Result<Debug> {
        Debug::start(self.namespace.command(&self.project, &Debug::words("deploy/demo", words)))
    }

    fn asking(&self) -> Asking {
        let (kubectl, pod) = (self.namespace.kubectl.clone(), self.pod.clone());
        let raw = format!("/api/v1/namespaces/{}/pods/http:{pod}:8080/proxy{ASKED}", self.namespace.name);
        Asking::start(move || drop(kubectl.raw(&raw)))
    }

    /// The same process, in the same container, with nobody at it.
    fn serves_free(&self) -> Result<()> {
        for _ in 0..2 {
            self.namespace.answers(&self.pod, QUESTION, &answer(""))?;
        }
        let process = self.look()?;
        ensure!(process == self.process && !process.contains("tracer"), "{process}, not {}", self.process);
        ensure!(self.namespace.restarts("demo")? == 0, "a container was started again");
        Ok(())
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn rust(namespace: &Namespace, image: &str, agent: Agent) -> Result<()> {
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    let session = Session::new(namespace, project, image, agent, &[])?;
    let symbols = session.project.dir.join("target/x86_64-unknown-linux-gnu/debug/adder");
    let debug = session.debug(&["--symbols", &symbols.to_string_lossy()])?;
    let line = line_of(&session.project.dir.join("src/main.rs"), "Some(sum) =>")?;
    let asking = session.asking();
    let stop = format!("break main.rs:{line} if x == 40");
    let output = gdb(&symbols, debug.port, &[&stop, "continue", "print y", "detach"]).output()?;
    let said = text(&output);
    ensure!(said.contains("hit Breakpoint 1") && said.contains("$1 = 2\n"), "{said}");
    debug.ends_well()?;
    drop(asking);
    session.serves_free()
}

#[test]
#[ignore = "needs: cluster"]
fn gdb_stops_at_a_line_beside_a_root_agent() -> Result<()> {
    in_namespace(|namespace| rust(namespace, manifests::RUST, Agent::Baseline))
}

#[test]
#[ignore = "needs: cluster"]
fn gdb_stops_at_a_line_where_the_agent_has_no_right_that_the_app_lacks() -> Result<()> {
    in_namespace(|namespace| rust(namespace, manifests::RUST_OWNED, Agent::Restricted))
}

fn go(namespace: &Namespace) -> Result<()> {
    let project = Project::go(namespace.path("adder"))?;
    let build = ["--build", "CGO_ENABLED=0 go build -gcflags 'all=-N -l' -o adder .", "--exe", "adder"];
    let session = Session::new(namespace, project, manifests::GO, Agent::Baseline, &build)?;
    let debug = session.debug(&[])?;
    let line = line_of(&session.project.dir.join("main.go"), "fmt.Fprintf(w")?;
    let asking = session.asking();
    let stop = format!("break stop main.go:{line}");
    let words = [&stop, "condition stop x == 40", "continue", "print sum", "clearall", "exit"];
    let output = dlv(&namespace.devsync.home, debug.port, &words)?.output()?;
    let left = Instant::now();
    let said = text(&output);
    ensure!(said.contains("main.add") && said.contains("\n42\n"), "{said}");
    debug.ends_well()?;
    // The end of its client's input is told to a debugger, and not waited out.
    ensure!(left.elapsed() < PATIENCE / 8, "the app was held for {:?}", left.elapsed());
    drop(asking);
    session.serves_free()
}

#[test]
#[ignore = "needs: cluster"]
fn delve_stops_at_a_line_and_lets_go_when_it_is_left() -> Result<()> {
    in_namespace(go)
}
