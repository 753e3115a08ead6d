//! A shell beside the app: for an agent that cannot enter its root, by name alone, and for registered keys.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use devsync_tests::app::UID;

use crate::rig::{Rig, Root, output, said};

/// What `devsync shell` asks for, by the words of stock ssh.
const ASK: [&str; 2] = ["-o", "SetEnv=DEVSYNC_SHELL=beside"];

/// A shell that reads `script`, of the key that was registered.
fn shell(rig: &Rig, options: &[&str], script: &str) -> std::process::Output {
    let mut ssh = ssh(rig, options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ssh");
    ssh.stdin.take().expect("piped").write_all(script.as_bytes()).expect("written");
    ssh.wait_with_output().expect("ended")
}

fn ssh(rig: &Rig, options: &[&str]) -> Command {
    let mut ssh = rig.tool("ssh");
    ssh.arg("-i").arg(rig.path("registered")).args(["-o", "IdentityAgent=none"]).args(options);
    ssh.arg("pod").stdin(Stdio::piped());
    // The configuration names the key of the file too, and would offer it first.
    let config = fs::read_to_string(rig.path("config")).expect("read");
    let kept: Vec<&str> = config.lines().filter(|line| !line.contains("IdentityFile")).collect();
    fs::write(rig.path("config"), kept.join("\n") + "\n").expect("written");
    ssh
}

fn scratch() -> Rig {
    let rig = Rig::restricted(Root::Scratch);
    rig.register(UID);
    fs::write(rig.path("root/srv/app/page"), "of the app\n").expect("written");
    rig
}

#[test]
#[ignore = "needs: root"]
fn where_the_root_is_closed_a_registered_key_gets_a_shell_beside_the_app() {
    let rig = scratch();
    let there = shell(
        &rig,
        &ASK,
        "pwd; echo \"$DEVSYNC_ROOT\"; ls; cat srv/app/page; cd srv/app; wc -l page; test -e usr || echo none; \
         test -d /usr && echo agent; id -u; ps | grep -c '/app'; env; pwd; exit 7\n",
    );
    let out = String::from_utf8_lossy(&there.stdout).into_owned();
    assert_eq!(there.status.code(), Some(7), "{out}{}", said(&there));
    let lines: Vec<&str> = out.lines().collect();
    let root = lines[0];
    assert!(root.starts_with("/proc/") && root.ends_with("/root") && lines[1] == root, "{out}");
    assert_eq!(lines[2..8], ["app", "dev", "etc", "proc", "srv", "tmp"], "{out}");
    assert_eq!(lines[8..13], ["of the app", "1 page", "none", "agent", "65532"], "{out}");
    // Nothing that the app chose: its environment could name a file to run at the start.
    assert!(!out.contains("APP=yes") && out.contains("PATH=/toolbox/debug\n"), "{out}");
    assert_eq!(lines.last(), Some(&format!("{root}/srv/app").as_str()), "{out}");
    assert!(rig.log().contains("a shell beside the app"), "{}", rig.log());
}

/// busybox' vi and its login shell run what they find in their home.
#[test]
#[ignore = "needs: root"]
fn files_of_the_app_do_not_decide_what_runs_beside_it() {
    let rig = scratch();
    for name in [".exrc", ".profile", ".ashrc"] {
        let file = rig.path("root").join(name);
        let text = if name == ".exrc" { "!echo ran >/tmp/devsync-beside\n" } else { "echo ran\n" };
        fs::write(&file, text).expect("written");
        std::os::unix::fs::chown(&file, Some(UID), Some(UID)).expect("owner");
    }
    let there = shell(
        &rig,
        &ASK,
        "sh -l -c 'echo quiet'; echo q | vi srv/app/page >srv/app/screen; ls /tmp; exit 3\n",
    );
    let out = String::from_utf8_lossy(&there.stdout).into_owned();
    assert_eq!(there.status.code(), Some(3), "{out}{}", said(&there));
    assert!(out.starts_with("quiet\n") && !out.contains("devsync-beside"), "{out}");
}

#[test]
#[ignore = "needs: root"]
fn nothing_but_that_request_leads_beside() {
    let rig = scratch();
    let refused = |output: &std::process::Output| {
        assert_eq!(output.status.code(), Some(255), "{}", said(output));
        assert!(output.stdout.is_empty(), "the agent's own root was used: {output:?}");
        assert!(said(output).contains("SYS_CHROOT"), "{}", said(output));
    };
    refused(&shell(&rig, &[], "pwd\n"));
    // A command, as rsync or `ssh HOST COMMAND` sends one.
    let mut command = ssh(&rig, &ASK);
    refused(&output(command.arg("pwd").stdin(Stdio::null())));
    // A key of the file, whatever it asks for.
    let mut file = rig.tool("ssh");
    file.arg("-i").arg(rig.path("id")).args(ASK).arg("pod").stdin(Stdio::null());
    refused(&output(&mut file));
    // Where the root can be entered, a shell is in it.
    let open = Rig::start(Root::Scratch);
    open.register(0);
    let inside = shell(&open, &ASK, "pwd; test -d /usr || echo inside\n");
    assert_eq!(String::from_utf8_lossy(&inside.stdout), "/srv/app\ninside\n", "{}", said(&inside));
}

#[test]
#[ignore = "needs: root"]
fn without_a_toolbox_there_is_nothing_beside() {
    let rig = scratch();
    fs::remove_file(rig.path("toolbox/busybox")).expect("removed");
    let refused = shell(&rig, &ASK, "pwd\n");
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    assert!(rig.log().contains("no toolbox"), "{}", rig.log());
}

/// Ends with the shell.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs: root"]
fn the_app_cannot_get_into_the_agents_container_through_that_shell() {
    let rig = scratch();
    let mut ssh = ssh(&rig, &ASK).stdout(Stdio::piped()).spawn().expect("ssh");
    let mut input = ssh.stdin.take().expect("piped");
    let out = ssh.stdout.take().expect("piped");
    let _running = Running(ssh);
    // The shell, and an applet that it started anew.
    input
        .write_all(b"tail -f /dev/null & echo $$; echo $!; readlink /proc/$!/exe || echo hidden\n")
        .expect("written");
    let mut lines = BufReader::new(out).lines();
    let mut line = || lines.next().expect("a line").expect("read");
    let shells = [line(), line()];
    assert_eq!(line(), "hidden", "the applet's own shell may not look either");
    let id = UID.to_string();
    let app = ["--reuid", &id, "--regid", &id, "--clear-groups", "--bounding-set=-all"];
    for pid in &shells {
        for link in ["root", "cwd", "exe", "fd/0"] {
            let path = format!("/proc/{pid}/{link}");
            let read = output(&mut rig.beside_agent(&app, &["readlink", &path]));
            assert!(!read.status.success(), "{path}: {read:?}");
        }
        for file in ["environ", "mem", "maps"] {
            let path = format!("/proc/{pid}/{file}");
            let read = output(&mut rig.beside_agent(&app, &["head", "-c", "1", &path]));
            assert!(!read.status.success(), "{path}: {read:?}");
        }
    }
    // The same user may look at another program of its own.
    let own = rig.beside_agent(&app, &["sh", "-c", "sleep 60 & readlink /proc/$!/root; kill $!"]).output();
    assert_eq!(own.expect("setpriv").stdout, b"/\n");
    drop(input);
}

#[test]
#[ignore = "needs: root"]
fn its_terminal_is_the_agents_and_its_prompt_says_where_it_is() {
    let rig = scratch();
    let there = shell(&rig, &["-tt", ASK[0], ASK[1]], "test -e \"$(tty)\" && echo named; exit 3\n");
    let out = String::from_utf8_lossy(&there.stdout).into_owned();
    assert_eq!(there.status.code(), Some(3), "{out}");
    assert!(out.contains("(beside the app) ") && out.contains("\nnamed\r"), "{out:?}");
}
