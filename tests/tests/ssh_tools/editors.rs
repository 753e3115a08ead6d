//! What VS Code's Remote-SSH does, step by step, with real programs: an install script on the standard input of `sh`, a
//! server that outlives that channel and the connection, and traffic to it through the SOCKS forward of another.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::rig::{Rig, Root, output, run, said, stop, until};

/// Unpacks the archive that stands behind it in the script, starts the server that was in it, and tells its port. The
/// server lets go of the channel, as theirs does.
const INSTALL: &str = r#"set -e
uname -sm
server=$HOME/.editor-server
mkdir -p "$server"
base64 -d <<'ARCHIVE' | tar -xzf - -C "$server"
@ARCHIVE@
ARCHIVE
cd "$server"
setsid sh -c 'echo $$ >pid; exec python3 server.py' >log 2>&1 </dev/null &
while [ ! -s port ]; do sleep 0.1; done
echo "listening on $(cat port)"
"#;

/// Answers each connection with what came, and the home it runs in.
const SERVER: &str = "\
import os, socket
s = socket.create_server(('127.0.0.1', 0))
open('port.part', 'w').write(str(s.getsockname()[1]))
os.rename('port.part', 'port')
while True:
    c, _ = s.accept()
    with c, c.makefile('rwb') as f:
        while line := f.readline().strip():
            pass
        f.write(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + os.getcwd().encode() + b' ' + str(os.getuid()).encode() + b'\\n')
";

fn archive(rig: &Rig) -> String {
    fs::write(rig.path("laptop/server.py"), SERVER).expect("written");
    run(Command::new("sh").args(["-c", "tar -czf - server.py | base64"]).current_dir(rig.path("laptop")))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("address").port()
}

#[test]
#[ignore = "needs: root"]
fn an_editors_server_is_installed_outlives_its_connection_and_is_reached() {
    let rig = Rig::start(Root::Debian);
    let script = INSTALL.replace("@ARCHIVE@", archive(&rig).trim());
    // Its own forward is asked for at once, as the editor does.
    let forward = free_port().to_string();
    let mut install = rig.tool("ssh");
    install.args(["-T", "-D", &forward, "pod", "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut install = install.stderr(Stdio::piped()).spawn().expect("ssh");
    install.stdin.take().expect("piped").write_all(script.as_bytes()).expect("written");
    let installed = install.wait_with_output().expect("ssh");
    let told = String::from_utf8_lossy(&installed.stdout).into_owned();
    assert!(installed.status.success() && told.starts_with("Linux "), "{told}{}", said(&installed));
    let port =
        told.lines().last().and_then(|line| line.strip_prefix("listening on ")).expect("a port").to_owned();
    let home = rig.path("project/.editor-server");
    assert!(home.join("server.py").is_file());
    // That connection has ended; the server has not, and another one reaches it.
    let forward = free_port().to_string();
    let mut tunnel = rig.tool("ssh");
    let mut tunnel = tunnel.args(["-N", "-D", &forward, "pod"]).spawn().expect("ssh");
    let ask = || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--proxy", &format!("socks5h://127.0.0.1:{forward}")]);
        output(curl.arg(format!("http://127.0.0.1:{port}/")))
    };
    let mut answer = String::new();
    until("the server answers", || {
        answer = String::from_utf8_lossy(&ask().stdout).into_owned();
        !answer.is_empty()
    });
    assert!(answer.contains(&home.display().to_string()) && answer.contains("65532"), "{answer}");
    stop(&mut tunnel);
    // It is ended as the editor ends it, and nothing of it is left.
    rig.says("kill $(cat ~/.editor-server/pid)");
    let left = "ps -eo args | grep -c '[s]erver.py' || true";
    until("nothing is left", || rig.says(left).trim() == "0");
}

/// The difference between a program and a daemon, as with OpenSSH: who leaves the session stays.
#[test]
#[ignore = "needs: root"]
fn a_daemon_survives_a_client_that_goes_and_a_program_does_not() {
    let rig = Rig::start(Root::Debian);
    let script = "sleep 4242 & setsid sleep 4343 >/dev/null 2>&1 </dev/null & wait";
    let mut ssh = rig.tool("ssh").args(["pod", script]).spawn().expect("ssh");
    let count = |seconds: &str| {
        rig.says(&format!("ps -eo args | grep -cx 'sleep {seconds}' || true")).trim().to_owned()
    };
    until("both run", || count("4242") == "1" && count("4343") == "1");
    stop(&mut ssh);
    until("the program ends", || count("4242") == "0");
    assert_eq!(count("4343"), "1");
    rig.says("pkill -x -f 'sleep 4343'");
}
