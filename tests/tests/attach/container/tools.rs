//! `exec`, `shell`, `ps`, `doctor`, `debug` on a plain container: one with a shell of its own, and one that has only its
//! program.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devsync_tests::debugger::{Debug, gdb, line_of};
use serde_json::Value;

use super::{Podman, put};
use crate::rig::{Rig, Said};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a usual image has, each a name of busybox.
const COMMANDS: [&str; 7] = ["sh", "id", "wc", "head", "env", "ls", "stty"];
/// Counts for ever, in a function that a breakpoint finds.
const PROGRAM: &str = "use std::{thread::sleep, time::Duration};
#[inline(never)]
fn step(n: u64) -> u64 {
    let twice = n * 2;
    std::hint::black_box(twice)
}
fn main() {
    for n in 1.. {
        step(n);
        sleep(Duration::from_millis(10));
    }
}
";

struct Place {
    // Dropped first: its containers are removed by a program in the rig's directory.
    podman: Podman,
    rig: Rig,
}

impl Place {
    /// The engine with the agent's image, and no container yet.
    fn new() -> Result<Place> {
        let rig = Rig::new()?;
        let podman = Podman::new(&rig)?;
        podman.agent_image(&rig.devsync.programs.join("devsync-agent"))?;
        Ok(Place { rig, podman })
    }

    /// The agent's image with a shell and gdb's server.
    fn toolbox(&self) -> Result<()> {
        self.podman.image("toolbox", "ENTRYPOINT [\"/devsync-agent\"]", |root| {
            put(&self.rig.devsync.programs.join("devsync-agent"), root, "devsync-agent")?;
            put(Path::new("/bin/busybox"), root, "toolbox/busybox")?;
            let applets = Command::new("busybox").arg("--list").output()?.stdout;
            fs::write(root.join("toolbox/applets"), applets)?;
            put(Path::new("/usr/bin/gdbserver"), root, "toolbox/debug/gdbserver")
        })
    }

    /// A container `app` whose image has a shell and a few commands.
    fn with_shell(&self) -> Result<()> {
        self.podman.image("usual", "WORKDIR /srv", |root| {
            fs::create_dir_all(root.join("bin"))?;
            fs::create_dir_all(root.join("srv"))?;
            fs::copy("/bin/busybox", root.join("bin/busybox"))?;
            COMMANDS.iter().try_for_each(|name| Ok(symlink("busybox", root.join("bin").join(name))?))
        })?;
        self.start("localhost/usual", &["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080"])
    }

    /// A container `app` that has a program of ours and nothing else; gives the program's file and its source.
    fn alone(&self) -> Result<(PathBuf, PathBuf)> {
        let (source, program) = (self.rig.other("counter.rs"), self.rig.other("counter"));
        fs::write(&source, PROGRAM)?;
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2021", "-g", "-C", "target-feature=+crt-static", "-o"]);
        let built = rustc.arg(&program).arg(&source).output().context("start rustc")?;
        ensure!(built.status.success(), "rustc: {}", String::from_utf8_lossy(&built.stderr));
        self.podman.image("scratch", "WORKDIR /", |root| {
            fs::copy(&program, root.join("counter"))?;
            Ok(())
        })?;
        self.start("localhost/scratch", &["/counter"])?;
        Ok((program, source))
    }

    fn start(&self, image: &str, words: &[&str]) -> Result<()> {
        let user = ["run", "--detach", "--name", "app", "--user", "1000:1000", "--env", "COLOUR=blue", image];
        self.podman.run(&[&user[..], words].concat()).map(drop)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.podman.devsync(&self.rig, words);
        command.env("DEVSYNC_TOOLBOX_IMAGE", "localhost/toolbox");
        command
    }

    fn run(&self, words: &[&str]) -> Result<Said> {
        crate::rig::run(self.command(words))
    }

    /// The same with `input` on standard input.
    fn fed(&self, words: &[&str], input: &[u8]) -> Result<Said> {
        let mut command = self.command(words);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn()?;
        child.stdin.take().context("piped")?.write_all(input)?;
        let output = child.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// No agent's container stays, and the app's runs. The engine removes the agent's in its own time.
    fn is_as_it_was(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.podman.run(&["ps", "--all", "--format", "{{.Names}} {{.Status}}"])?;
            if left.starts_with("app Up ") && left.lines().count() == 1 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{left}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
#[ignore = "needs: root, podman"]
fn exec_gives_the_programs_streams_and_its_exit_status() -> Result<()> {
    let place = Place::new()?;
    place.with_shell()?;
    let sh = |script: &str| place.run(&["exec", "podman/app", "--", "sh", "-c", script]);
    let said = sh("echo out; echo err >&2")?.code(0)?;
    ensure!((said.out.as_str(), said.err.as_str()) == ("out\n", "err\n"), "{said:?}");
    sh("exit 1")?.code(1)?;
    sh("kill -9 $$")?.code(137)?;
    // The app's user, its directory, its environment, and as much output as it likes.
    let said = sh("id -u; pwd; echo $COLOUR")?.code(0)?;
    ensure!(said.out == "1000\n/srv\nblue\n", "{said:?}");
    ensure!(sh("head -c 3000000 /dev/zero")?.code(0)?.out.len() == 3_000_000);
    let said = place.fed(&["exec", "-i", "podman/app", "--", "wc", "-c"], &vec![b'x'; 1_000_000])?.code(0)?;
    ensure!(said.out.trim() == "1000000", "{said:?}");
    // Without -i there is none.
    ensure!(place.fed(&["exec", "podman/app", "--", "wc", "-c"], b"xyz")?.code(0)?.out.trim() == "0");
    let missing = place.run(&["exec", "podman/app", "--", "no-such-program"])?.code(255)?;
    missing.says(&["podman/app has no program no-such-program", "hint: "])?;
    place
        .run(&["exec", "podman/other", "--", "true"])?
        .code(255)?
        .says(&["no container other", "podman ps"])?;
    place.is_as_it_was()
}

#[test]
#[ignore = "needs: root, podman"]
fn a_container_without_a_shell_gets_the_toolboxs() -> Result<()> {
    let place = Place::new()?;
    place.alone()?;
    // The agent's image alone has none, which is said with what brings one.
    let said = place.fed(&["shell", "podman/app"], b"echo hi\n")?;
    ensure!(said.code.is_some_and(|code| code != 0), "{said:?}");
    said.says(&["no shell", "hint: podman pull localhost/toolbox"])?;
    let exec = ["exec", "podman/app", "--", "sh", "-c", "echo $COLOUR; exit 3"];
    place.run(&exec)?.code(255)?.says(&["has no program sh", "podman pull localhost/toolbox"])?;
    place.toolbox()?;
    let said = place.fed(&["shell", "podman/app"], b"id -u; ls /; exit 4\n")?.code(4)?;
    ensure!(said.out.starts_with("1000\n") && said.out.contains("\ncounter\n"), "{said:?}");
    ensure!(!said.out.contains("toolbox"), "{said:?}");
    let said = place.run(&exec)?.code(3)?;
    ensure!(said.out == "blue\n", "{said:?}");
    let said = place.run(&["restart", "podman/app"])?.code(0)?;
    ensure!(said.out.contains("restarted counter in place (same PID)"), "{said:?}");
    place.is_as_it_was()
}

#[test]
#[ignore = "needs: root, podman"]
fn a_shell_on_a_terminal_is_the_containers() -> Result<()> {
    let place = Place::new()?;
    place.with_shell()?;
    // script(1) is the terminal; what is typed comes through a pipe that stays open until the shell has ended.
    let command = place.command(&["shell", "podman/app"]);
    let line: Vec<String> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let line = format!("stty rows 21 cols 91; {}", line.join(" "));
    let typescript = place.rig.other("typescript");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &line]).arg(&typescript);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("TERM", "xterm").current_dir(&place.rig.laptop);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut keys = child.stdin.take().context("piped")?;
    let shown = |text: &str| -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = fs::read(&typescript).unwrap_or_default();
            if String::from_utf8_lossy(&screen).contains(text) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no {text:?} on {:?}", String::from_utf8_lossy(&screen));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // Typed when there is a prompt; what comes back is the terminal's, not only the echo of it.
    shown("$ ")?;
    keys.write_all(b"stty size; echo $((6*7)) of $(id -u)\n")?;
    shown("21 91")?;
    shown("42 of 1000")?;
    keys.write_all(b"exit 5\n")?;
    let status = child.wait()?;
    ensure!(status.code() == Some(5), "{status}");
    place.is_as_it_was()
}

#[test]
#[ignore = "needs: root, podman"]
fn ps_and_doctor_look_at_the_container_and_no_further() -> Result<()> {
    let place = Place::new()?;
    place.with_shell()?;
    let said = place.run(&["ps", "podman/app", "-o", "json"])?.code(0)?;
    let rows: Vec<Value> = said.out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let apps: Vec<&Value> = rows.iter().filter(|row| row["agent"] == false).collect();
    ensure!(apps.len() == 1 && apps[0]["uid"] == 1000, "{rows:#?}");
    ensure!(apps[0]["ports"] == serde_json::json!([8080]) && apps[0]["argv"][1] == "httpd", "{rows:#?}");
    let table = place.run(&["ps", "podman/app"])?.code(0)?;
    ensure!(table.out.contains("COMMAND") && table.out.contains("/bin/busybox httpd"), "{table:?}");
    let said = place.run(&["doctor", "podman/app", "-o", "json"])?;
    let told: Value = serde_json::from_str(&said.out)?;
    let part = told["parts"].as_array().and_then(|parts| parts.last()).context("a part")?;
    ensure!(part["part"] == "podman/app", "{part}");
    for topic in ["agent", "app", "root", "restart"] {
        let found = part["findings"].as_array().into_iter().flatten().find(|f| f["topic"] == topic);
        ensure!(found.is_some_and(|found| found["level"] == "ok"), "{topic}: {part:#}");
    }
    let words = place.run(&["doctor", "podman/app"])?;
    ensure!(words.code == said.code && words.out.contains("podman/app\n"), "{words:?}");
    let gone = place.run(&["doctor", "podman/other"])?.code(1)?;
    ensure!(gone.out.contains("problem") && gone.out.contains("fix: podman ps"), "{gone:?}");
    // What only a cluster has is said with what does it here.
    place.run(&["logs", "podman/app"])?.code(2)?.says(&["no cluster", "hint: podman logs app"])?;
    let forward = place.run(&["port-forward", "podman/app", "8080"])?.code(2)?;
    forward.says(&["no cluster", "devsync ssh-config podman/app", "app.devsync"])?;
    place.is_as_it_was()
}

#[test]
#[ignore = "needs: root, podman"]
fn gdb_stops_at_a_line_of_a_program_that_is_alone_in_its_container() -> Result<()> {
    let place = Place::new()?;
    let (program, source) = place.alone()?;
    let target = "podman/app";
    let refused = place.run(&["debug", target])?.code(1)?;
    refused.says(&["localhost/toolbox", "hint: ", "DEVSYNC_TOOLBOX_IMAGE"])?;
    place.toolbox()?;
    let symbols = program.to_string_lossy().into_owned();
    let debug = Debug::start(place.command(&Debug::words(target, &["--symbols", &symbols])))?;
    let stop = format!("break counter.rs:{}", line_of(&source, "black_box")?);
    let output =
        gdb(&program, debug.port, &[&stop, "continue", "print twice == n * 2", "detach"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.contains("Breakpoint 1, ") && said.contains("$1 = true"), "{output:?}");
    debug.ends_well()?;
    let said = place.run(&["debug", target, "--stacks", "--symbols", &symbols])?.code(0)?;
    ensure!(said.out.contains("main"), "{said:?}");
    place.is_as_it_was()
}
