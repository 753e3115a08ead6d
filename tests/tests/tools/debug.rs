//! `devsync debug` with real debuggers: a breakpoint by line hits, a variable reads right, the app serves on.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use devsync_tests::app::App;
use devsync_tests::debugger::{Asking, Debug, dlv, gdb, line_of, lldb};

use crate::rig::{Rig, both, demo, succeeds};

fn debug(rig: &Rig, app: &App, words: &[&str]) -> Result<Debug> {
    let target = format!("pid/{}", app.pid());
    Debug::start(rig.command(&Debug::words(&target, words)))
}

fn asking(app: &App) -> Asking {
    let mut client = app.client();
    Asking::start(move || drop(client.get("/add/40/2")))
}

fn serves_free(app: &App) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", app.pid()))?;
    ensure!(status.contains("TracerPid:\t0\n"), "{status}");
    for _ in 0..2 {
        ensure!(app.client().get("/add/2/3")?.contains("2 + 3 = 5"));
    }
    Ok(())
}

/// Kills what `timeout` runs, as nothing that could say good-bye.
fn kill_child_of(parent: u32) -> Result<()> {
    let status = Command::new("pkill").args(["-KILL", "--parent", &parent.to_string()]).status()?;
    ensure!(status.success(), "no child of {parent}: {status}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn gdb_stops_at_a_line_of_a_scratch_app_and_lets_go() -> Result<()> {
    let rig = Rig::new()?;
    let symbols = rig.rust()?;
    let app = rig.start(&symbols)?;
    let debug = debug(&rig, &app, &["--symbols", &symbols.to_string_lossy()])?;
    let line = line_of(&demo("rust/src/main.rs"), "x.checked_add(y)")?;
    let asking = asking(&app);
    let stop = format!("break main.rs:{line}");
    let output =
        gdb(&symbols, debug.port, &[&stop, "continue", "print path", "info args", "detach"]).output()?;
    let said = both(&output);
    ensure!(said.contains("hit Breakpoint 1") && said.contains("/add/"), "{said}");
    debug.ends_well()?;
    drop(asking);
    serves_free(&app)
}

#[test]
#[ignore = "needs: root"]
fn a_lost_gdb_leaves_no_breakpoint_in_the_app() -> Result<()> {
    let rig = Rig::new()?;
    let symbols = rig.rust()?;
    let app = rig.start(&symbols)?;
    let debug = debug(&rig, &app, &["--symbols", &symbols.to_string_lossy()])?;
    let line = line_of(&demo("rust/src/main.rs"), "x.checked_add(y)")?;
    let stop = format!("break main.rs:{line}");
    let mut gdb = gdb(&symbols, debug.port, &["set debug remote 1", &stop, "continue"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    // Killed once the app runs with the breakpoint in it.
    let mut inserted = false;
    for line in BufReader::new(gdb.stderr.take().context("piped")?).lines() {
        let line = line?;
        inserted |= line.contains("Sending packet: $Z0");
        if inserted && line.contains("Sending packet: $vCont;c") {
            break;
        }
    }
    kill_child_of(gdb.id())?;
    gdb.wait()?;
    debug.ends_well()?;
    serves_free(&app)
}

#[test]
#[ignore = "needs: root"]
fn lldb_stops_at_a_line_of_a_scratch_app_and_goes_on_from_there() -> Result<()> {
    let rig = Rig::new()?;
    let symbols = rig.rust()?;
    let app = rig.start(&symbols)?;
    let debug = debug(&rig, &app, &["--symbols", &symbols.to_string_lossy()])?;
    let line = line_of(&demo("rust/src/main.rs"), "x.checked_add(y)")?;
    let asking = asking(&app);
    let stop = format!("breakpoint set --file main.rs --line {line}");
    // On from the breakpoint and back to it: an app that went on one byte late would have died. The line has two places:
    // before its names are bound, and after.
    let words = [&stop, "continue", "continue", "frame variable x y", "continue", "detach"];
    let said = both(&lldb(&symbols, debug.port, &words).output()?);
    ensure!(said.matches("stop reason = breakpoint 1.").count() >= 3, "{said}");
    ensure!(said.contains("x = 40") && said.contains("y = 2") && said.contains("detached"), "{said}");
    debug.ends_well()?;
    drop(asking);
    serves_free(&app)
}

#[test]
#[ignore = "needs: root"]
fn an_lldb_that_quits_at_a_breakpoint_does_not_kill_the_app() -> Result<()> {
    let rig = Rig::new()?;
    let symbols = rig.rust()?;
    let app = rig.start(&symbols)?;
    let line = line_of(&demo("rust/src/main.rs"), "x.checked_add(y)")?;
    let stop = format!("breakpoint set --file main.rs --line {line}");
    for end in ["quit", "process kill"] {
        let debug = debug(&rig, &app, &["--symbols", &symbols.to_string_lossy()])?;
        let asking = asking(&app);
        let said = both(&lldb(&symbols, debug.port, &[&stop, "continue", end]).output()?);
        ensure!(said.contains("stop reason = breakpoint 1.1"), "{said}");
        debug.ends_well()?;
        drop(asking);
        serves_free(&app)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_gdb_that_kills_lets_the_app_go() -> Result<()> {
    let rig = Rig::new()?;
    let symbols = rig.rust()?;
    let app = rig.start(&symbols)?;
    let debug = debug(&rig, &app, &["--symbols", &symbols.to_string_lossy()])?;
    let output = gdb(&symbols, debug.port, &["set confirm off", "kill"]).output()?;
    debug.ends_well()?;
    serves_free(&app).with_context(|| both(&output))
}

#[test]
#[ignore = "needs: root"]
fn delve_stops_at_a_line_of_a_scratch_app_and_lets_go() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.start(&rig.go()?)?;
    let debug = debug(&rig, &app, &[])?;
    let line = line_of(&demo("go/main.go"), "fmt.Fprintf(w")?;
    let asking = asking(&app);
    let stop = format!("break main.go:{line}");
    let output =
        dlv(rig.dir.path(), debug.port, &[&stop, "continue", "print sum", "clearall", "exit"])?.output()?;
    let said = both(&output);
    ensure!(said.contains("main.add") && said.contains("42"), "{said}");
    debug.ends_well()?;
    drop(asking);
    serves_free(&app)
}

/// The version that Go wrote into the program is changed there to one that no delve knows.
#[test]
#[ignore = "needs: root"]
fn a_go_that_delve_does_not_know_is_said_beforehand() -> Result<()> {
    let rig = Rig::new()?;
    let built = rig.go()?;
    let mut bytes = fs::read(&built)?;
    // The two that build information begins with: the length, and `go1.`.
    let magic =
        bytes.windows(14).position(|part| part == b"\xff Go buildinf:").context("build information")?;
    let version = bytes.get_mut(magic + 32..).context("a version")?;
    ensure!(version.get(1..5) == Some(b"go1."), "another Go's build information");
    version.get_mut(5..7).context("two digits")?.copy_from_slice(b"99");
    fs::write(&built, bytes)?;
    let app = rig.start(&built)?;
    let target = format!("pid/{}", app.pid());
    let refused = rig.command(&["debug", &target]).output()?;
    let said = both(&refused);
    ensure!(refused.status.code() == Some(1) && said.contains("built with go1.99"), "{said}");
    ensure!(said.contains("delve 1.") && said.contains("hint: --debugger FILE"), "{said}");
    // A delve of one's own is one's own choice.
    let own = String::from_utf8(succeeds(Command::new("sh").args(["-c", "command -v dlv"]))?.stdout)?;
    let debug = debug(&rig, &app, &["--debugger", own.trim()])?;
    dlv(rig.dir.path(), debug.port, &["exit"])?.output()?;
    debug.ends_well()?;
    serves_free(&app)
}

#[test]
#[ignore = "needs: root"]
fn what_cannot_be_debugged_is_told_and_left_alone() -> Result<()> {
    let rig = Rig::new()?;
    let symbols = rig.rust()?;
    let app = rig.start(&symbols)?;
    let target = format!("pid/{}", app.pid());
    // Symbols of another build: both build ids are told.
    let other = rig.command(&["debug", &target, "--symbols", "/bin/true"]).output()?;
    let said = both(&other);
    ensure!(other.status.code() == Some(1) && said.contains("another build"), "{said}");
    let ids = said.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 40).count();
    ensure!(ids == 2, "{said}");
    let text = rig.path("text");
    fs::write(&text, "fn main() {}")?;
    let no_elf = rig.command(&["debug", &target, "--symbols", &text.to_string_lossy()]).output()?;
    ensure!(no_elf.status.code() == Some(2) && both(&no_elf).contains("no ELF file"), "{}", both(&no_elf));
    // A debugger that is there already: who.
    let debug = debug(&rig, &app, &[])?;
    // Its input stays open, so it waits for a person.
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-ex", &format!("target remote 127.0.0.1:{}", debug.port)]).arg(&symbols);
    let mut gdb = gdb.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let tracer = format!("/proc/{}/status", app.pid());
    while fs::read_to_string(&tracer)?.contains("TracerPid:\t0\n") {
        thread::yield_now();
    }
    let second = rig.command(&["debug", &target]).output()?;
    gdb.kill()?;
    gdb.wait()?;
    let said = both(&second);
    ensure!(second.status.code() == Some(1) && said.contains("gdbserver (pid "), "{said}");
    debug.ends_well()?;
    serves_free(&app)?;
    let gone = rig.command(&["debug", "pid/4194304"]).output()?;
    ensure!(gone.status.code() == Some(1) && both(&gone).contains("4194304"), "{}", both(&gone));
    Ok(())
}
