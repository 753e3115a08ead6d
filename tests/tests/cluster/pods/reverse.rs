//! `attach --reverse` in a pod: what the app connects to on its own loopback is a service of the laptop.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Result, ensure};
use devsync_protocol::contract;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::demo::project::Language;

use super::{in_namespace, stop};

/// Run in the app's container: sends bytes, half-closes, and prints how many came back, and whether turned around.
const ASK: &str = "import socket, sys
s = socket.create_connection(('127.0.0.1', 15432), 30)
sent = bytes(range(256)) * int(sys.argv[1])
import threading
def send():
    s.sendall(sent)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
got = b''
while part := s.recv(65536):
    got += part
print(len(got), got == sent[::-1])";

/// A service on the laptop that turns what it gets around; it ends with the test.
fn service() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || turn(client));
        }
    });
    Ok(port)
}

fn turn(mut client: TcpStream) -> Result<()> {
    let mut got = Vec::new();
    client.read_to_end(&mut got)?;
    got.reverse();
    Ok(client.write_all(&got)?)
}

fn comes_back(namespace: &Namespace) -> Result<()> {
    namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
    let pod = namespace.pod("demo")?;
    let project = Project::copy(Language::Python, namespace.path("adder"))?;
    let reverse = format!("localhost:{}:15432", service()?);
    let mut attach = namespace.attach(&project, &["attach", "deploy/demo", "--reverse", &reverse])?;
    attach.first_sync()?;
    let ask =
        |times: &str| namespace.kubectl.run(&["exec", &pod, "-c", "app", "--", "python3", "-c", ASK, times]);
    for (times, answer) in [("1", "256 True"), ("12000", "3072000 True"), ("0", "0 True")] {
        let said = ask(times)?;
        ensure!(said.trim() == answer, "{said}");
    }
    // The agent is started anew: the port leads here again.
    let before = namespace.kubectl.json(&["get", "pod", &pod])?;
    let stop_agent = ["exec", &pod, "-c", contract::AGENT_CONTAINER, "--", contract::AGENT_PROGRAM, "stop"];
    namespace.kubectl.run(&stop_agent)?;
    attach.event("disconnected")?;
    attach.event("reconnected")?;
    namespace.until("an answer after a reconnect", || {
        Ok(ask("1").ok().filter(|said| said.trim() == "256 True"))
    })?;
    stop(attach)?;
    namespace.until("an end of the port", || Ok(ask("1").is_err().then_some(())))?;
    let after = namespace.kubectl.json(&["get", "pod", &pod])?;
    ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "the pod was replaced");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn what_the_app_connects_to_is_the_laptops() -> Result<()> {
    in_namespace(comes_back)
}
