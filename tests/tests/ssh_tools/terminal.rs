//! A terminal: keys, an editor, a new size, as a person sees them in tmux; of ssh, and of `devsync shell`.

use std::fs;
use std::process::Command;

use crate::rig::{Rig, Root, built, output, run, until};

/// A tmux server of its own, with `ssh pod` in it.
struct Screen {
    socket: std::path::PathBuf,
}

impl Screen {
    fn ssh(rig: &Rig) -> Self {
        Self::open(rig, &format!("ssh -F {} pod", rig.path("config").display()))
    }

    fn open(rig: &Rig, command: &str) -> Self {
        let screen = Self { socket: rig.path("tmux") };
        let command = format!("{command}; echo ended with $?; stty -a; sleep 60");
        run(screen.tmux().args(["-f", "/dev/null", "new-session", "-d", "-x", "90", "-y", "20", &command]));
        screen
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(&self.socket);
        tmux
    }

    fn shows(&self) -> String {
        run(self.tmux().args(["capture-pane", "-p"]))
    }

    fn keys(&self, keys: &[&str]) {
        run(self.tmux().arg("send-keys").args(keys));
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        until(text, || self.shows().contains(text));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the screen: {}", self.shows());
        }
        run(self.tmux().arg("kill-server"));
    }
}

#[test]
#[ignore = "needs: root"]
fn an_editor_works_and_follows_the_size() {
    let rig = Rig::start(Root::Debian);
    let screen = Screen::ssh(&rig);
    screen.keys(&["stty size; echo $TERM; tty", "Enter"]);
    screen.wait_for("20 90");
    screen.wait_for("/dev/pts/");
    run(screen.tmux().args(["resize-window", "-x", "70", "-y", "15"]));
    screen.keys(&["clear; stty size", "Enter"]);
    screen.wait_for("15 70");
    screen.keys(&["vim.tiny -u NONE text", "Enter"]);
    screen.wait_for("[New");
    screen.keys(&["i", "hello from vi", "Escape"]);
    screen.keys(&[":wq", "Enter"]);
    let file = rig.path("project/text");
    until("the file is written", || fs::read_to_string(&file).is_ok_and(|text| text == "hello from vi\n"));
    // Keys become signals there.
    screen.keys(&["clear; sleep 4712", "Enter"]);
    until("it sleeps", || !rig.says("pgrep -f '^sleep 4712' || true").is_empty());
    screen.keys(&["C-c", "echo rc=$?", "Enter"]);
    screen.wait_for("rc=130");
    screen.keys(&["exit 3", "Enter"]);
    screen.wait_for("ended with 3");
}

#[test]
#[ignore = "needs: root"]
fn a_terminal_in_a_root_that_has_nothing() {
    let rig = Rig::start(Root::Scratch);
    let screen = Screen::ssh(&rig);
    screen.keys(&["tty; stty size; pwd", "Enter"]);
    screen.wait_for("/dev/pts/0");
    screen.wait_for("20 90");
    screen.wait_for("/srv/app");
    screen.keys(&["exit", "Enter"]);
    screen.wait_for("ended with 0");
}

#[test]
#[ignore = "needs: root"]
fn the_clients_own_shell_follows_the_size_and_ends_as_the_shell_does() {
    let rig = Rig::start(Root::Debian);
    let home = rig.path("laptop");
    let shell = format!(
        "env -u XDG_STATE_HOME -u XDG_RUNTIME_DIR HOME={} {} shell pid/{}",
        home.display(),
        built("devsync").display(),
        rig.app()
    );
    let screen = Screen::open(&rig, &shell);
    screen.keys(&["stty size; echo $TERM $APP; tty; pwd", "Enter"]);
    screen.wait_for("20 90");
    screen.wait_for(" yes");
    screen.wait_for("/dev/pts/");
    run(screen.tmux().args(["resize-window", "-x", "70", "-y", "15"]));
    // Through three processes: no event says when it has come.
    until("the new size", || {
        screen.keys(&["clear; stty size", "Enter"]);
        screen.shows().contains("15 70")
    });
    screen.keys(&["clear; vim.tiny -u NONE text", "Enter"]);
    screen.wait_for("[New");
    screen.keys(&["i", "hello from vi", "Escape"]);
    screen.keys(&[":wq", "Enter"]);
    let file = rig.path("project/text");
    until("the file is written", || fs::read_to_string(&file).is_ok_and(|text| text == "hello from vi\n"));
    screen.keys(&["clear; sleep 4713", "Enter"]);
    // In this machine's process namespace, as the agent that the client started.
    let sleeps = || output(Command::new("pgrep").args(["-f", "^sleep 4713"])).status.success();
    until("it sleeps", sleeps);
    screen.keys(&["C-c", "echo rc=$?", "Enter"]);
    screen.wait_for("rc=130");
    screen.keys(&["clear; exit 3", "Enter"]);
    screen.wait_for("ended with 3");
    // The terminal is as it was: lines, echo, signals.
    screen.wait_for(" icanon");
    let settings = screen.shows();
    for raw in ["-icanon", "-echo ", "-isig", "-opost"] {
        assert!(!settings.contains(raw), "{settings}");
    }
}
