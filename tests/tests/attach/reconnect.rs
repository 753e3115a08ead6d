//! The session is lost while an attach runs: another one goes on, and nothing that was saved meanwhile is lost.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devsync_tests::app::App;
use devsync_tests::attach::Attach;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::relay::Relay;
use crate::rig::{Rig, ask};
use crate::ssh::Server;

/// Longer than a silent agent may stay unnoticed.
const NOTICED: Duration = Duration::from_secs(25);

/// The agent that an attach of `pid/N` started.
fn agent(attach: &Attach) -> Result<Pid> {
    let pid = attach.pid();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    for task in tasks {
        let children = fs::read_to_string(task?.path().join("children"))?;
        for child in children.split_whitespace() {
            if fs::read_to_string(format!("/proc/{child}/comm"))
                .is_ok_and(|comm| comm.trim() == "devsync-agent")
            {
                return Ok(Pid::from_raw(child.parse()?));
            }
        }
    }
    bail!("process {pid} has no agent")
}

/// Waits until the attach has lost its session and has another one; gives the cause.
fn back(attach: &mut Attach) -> Result<String> {
    let lost = attach.event("disconnected")?;
    let trying = attach.event("reconnecting")?;
    ensure!(trying["attempt"] == 1 && trying["in_ms"].is_number(), "{trying}");
    let back = attach.event("reconnected")?;
    ensure!(back["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{back}");
    Ok(lost["cause"].as_str().unwrap_or_default().to_owned())
}

fn is_answered(app: &App, answer: &str) -> Result<()> {
    let said = ask(app)?;
    ensure!(said.starts_with(&format!("{answer} ")), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn an_agent_that_is_killed_is_started_again() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut attach = rig.attach(&app, &[])?;
    let first = agent(&attach)?;
    kill(first, Signal::SIGKILL)?;
    // In the gap.
    rig.save("two")?;
    fs::write(rig.laptop.join("new.txt"), "new")?;
    let cause = back(&mut attach)?;
    ensure!(cause.contains("signal: 9"), "{cause}");
    attach.event_where("synced", |e| e["files"] == 2 && e["initial"] == false)?;
    attach.event("restarted")?;
    attach.event("ready")?;
    is_answered(&app, "two")?;
    ensure!(agent(&attach)? != first);
    // As before, and once more.
    rig.save("three")?;
    attach.event("ready")?;
    is_answered(&app, "three")?;
    kill(agent(&attach)?, Signal::SIGKILL)?;
    back(&mut attach)?;
    attach.event_where("synced", |e| e["files"] == 0)?;
    rig.run(&["verify"])?.code(0)?;
    let status = rig.run(&["status"])?.code(0)?;
    ensure!(!status.out.contains("DISCONNECTED"), "{status:?}");
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn an_agent_that_falls_silent_is_noticed_and_replaced() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut attach = rig.attach(&app, &[])?;
    let first = agent(&attach)?;
    kill(first, Signal::SIGSTOP)?;
    let stopped = Instant::now();
    // More than a pipe holds, so that sending it waits for an agent that does not read.
    fs::write(rig.laptop.join("large.bin"), vec![7; 4_000_000])?;
    rig.save("two")?;
    let cause = back(&mut attach)?;
    ensure!(cause.contains("said nothing for"), "{cause}");
    ensure!(stopped.elapsed() < NOTICED, "noticed after {:?}", stopped.elapsed());
    attach.event_where("synced", |e| e["files"] == 2)?;
    attach.event("ready")?;
    is_answered(&app, "two")?;
    ensure!(fs::read(rig.pod.join("large.bin"))? == vec![7; 4_000_000]);
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

/// A client that was stopped itself takes nobody for dead.
#[test]
#[ignore = "needs: root"]
fn a_client_that_was_stopped_goes_on_with_its_session() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut attach = rig.attach(&app, &["--restart", "none"])?;
    let client = Pid::from_raw(i32::try_from(attach.pid())?);
    kill(client, Signal::SIGSTOP)?;
    // The time is the point: longer than any silence that is borne.
    std::thread::sleep(Duration::from_secs(20));
    fs::write(rig.laptop.join("new.txt"), "new")?;
    kill(client, Signal::SIGCONT)?;
    let synced = attach.event_but("synced", "disconnected")?;
    ensure!(synced["files"] == 1, "{synced}");
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_server_that_comes_back_is_found_and_asked_meanwhile() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut server = Server::start(&rig, &app)?;
    let mut attach = server.attach(&rig, &[])?;
    attach.first_sync()?;
    server.kill()?;
    attach.event("disconnected")?;
    rig.save("two")?;
    // Each answer comes at once.
    let status = rig.run(&["status"])?.code(0)?;
    ensure!(status.out.contains("DISCONNECTED for ") && status.out.contains("trying again"), "{status:?}");
    let asked = Instant::now();
    rig.run(&["restart"])?.code(1)?.says(&["is disconnected", "caused by: ", "hint: "])?;
    rig.run(&["verify"])?.code(2)?.says(&["is disconnected"])?;
    rig.run(&["pull", "app.py", "--overwrite"])?.code(1)?.says(&["is disconnected"])?;
    ensure!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    attach.event_where("reconnecting", |e| e["attempt"].as_u64() > Some(2) && e["cause"].is_string())?;
    server.restart(&rig, &app)?;
    attach.event("reconnected")?;
    attach.event_where("synced", |e| e["files"] == 1)?;
    attach.event("ready")?;
    is_answered(&app, "two")?;
    rig.run(&["verify"])?.code(0)?;
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

/// Ctrl-C ends an outage too.
#[test]
#[ignore = "needs: root"]
fn an_outage_ends_when_it_is_told_to() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut server = Server::start(&rig, &app)?;
    let mut attach = server.attach(&rig, &["--restart", "none"])?;
    attach.first_sync()?;
    server.kill()?;
    attach.event_where("reconnecting", |e| e["attempt"] == 2)?;
    assert_eq!(attach.stop()?.code(), Some(0));
    ensure!(rig.run(&["status"])?.code(0)?.out.contains("nothing is attached"));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn another_host_key_ends_the_attach() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut server = Server::start(&rig, &app)?;
    let mut attach = server.attach(&rig, &["--restart", "none"])?;
    attach.first_sync()?;
    server.kill()?;
    attach.event("disconnected")?;
    fs::remove_dir_all(rig.other("agent"))?;
    server.restart(&rig, &app)?;
    let (code, events) = attach.end()?;
    ensure!(code == Some(1), "{code:?} {events:?}");
    let said = rig.said()?;
    ensure!(said.contains("error: ") && said.contains("has host key SHA256:"), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_process_that_is_gone_ends_its_attach() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let attach = rig.attach(&app, &["--restart", "none"])?;
    drop(app);
    let (code, events) = attach.end()?;
    ensure!(code == Some(1) && events.iter().all(|e| e["event"] != "reconnecting"), "{code:?} {events:?}");
    ensure!(rig.said()?.contains("error: the app is gone"), "{}", rig.said()?);
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_batch_that_was_cut_is_sent_again() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let server = Server::start(&rig, &app)?;
    let relay = Relay::start(server.address()?)?;
    let mut attach = server.attach_through(&rig, &relay.target(), &["--restart", "none"])?;
    attach.first_sync()?;
    relay.cut_after(3_000_000);
    let content = random(30_000_000)?;
    fs::write(rig.laptop.join("large.bin"), &content)?;
    back(&mut attach)?;
    ensure!(relay.cuts() == 1, "{}", relay.cuts());
    attach.event_where("synced", |e| e["files"] == 1)?;
    ensure!(fs::read(rig.pod.join("large.bin"))? == content);
    // Nothing of the first half is left.
    assert_eq!(rig.in_pod()?, ["app.py", "large.bin"]);
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

/// As behind a router that forgot the connection: nothing is refused, and nothing comes.
#[test]
#[ignore = "needs: root"]
fn a_link_that_swallows_everything_is_replaced() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let server = Server::start(&rig, &app)?;
    let relay = Relay::start(server.address()?)?;
    let mut attach = server.attach_through(&rig, &relay.target(), &["--restart", "none"])?;
    attach.first_sync()?;
    relay.swallow();
    let swallowed = Instant::now();
    fs::write(rig.laptop.join("large.bin"), random(30_000_000)?)?;
    let lost = attach.event("disconnected")?;
    ensure!(lost["cause"].as_str().is_some_and(|c| c.contains("said nothing")), "{lost}");
    ensure!(swallowed.elapsed() < NOTICED, "noticed after {:?}", swallowed.elapsed());
    relay.heal();
    attach.event("reconnected")?;
    attach.event_where("synced", |e| e["files"] == 1)?;
    rig.run(&["verify"])?.code(0)?;
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

/// The agent takes the lost session for a living one, and would hold the target and the port for it.
#[test]
#[ignore = "needs: root"]
fn a_client_takes_its_own_place_after_a_silent_cut() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let server = Server::start(&rig, &app)?;
    let relay = Relay::start(server.address()?)?;
    let service = TcpListener::bind("127.0.0.1:0")?;
    let there = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let reverse = format!("{}:{}", service.local_addr()?.port(), there.port());
    let words = ["--restart", "none", "--reverse", &reverse];
    let mut attach = server.attach_through(&rig, &relay.target(), &words)?;
    attach.first_sync()?;
    relay.strand();
    fs::write(rig.laptop.join("new.txt"), "new")?;
    let lost = attach.event("disconnected")?;
    ensure!(lost["cause"].as_str().is_some_and(|c| c.contains("said nothing")), "{lost}");
    let first = attach.event("reconnecting")?;
    ensure!(first["attempt"] == 1, "{first}");
    // At the first try: the old session is not waited for.
    attach.event_but("reconnected", "reconnecting")?;
    attach.event_where("synced", |e| e["files"] == 1)?;
    let _app_side = TcpStream::connect(there)?;
    service.accept()?;
    // Another client with the same key is another client.
    let identity = rig.other("id");
    let identity = identity.to_str().context("a name")?;
    let login =
        ["attach", &relay.target(), "--identity", identity, "--host-key", server.host_key(), "--once"];
    rig.run(&login)?.code(1)?.says(&["hint: "])?;
    ensure!(attach.ended()?.is_none(), "it ended the first one");
    rig.run(&["verify"])?.code(0)?;
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

/// The agent is killed within a commit: what it wrote without having said so is ours, and no conflict.
#[test]
#[ignore = "needs: root"]
fn what_a_lost_batch_wrote_is_no_conflict() -> Result<()> {
    const FILES: usize = 400;
    let rig = Rig::new()?;
    let app = rig.app()?;
    let write = |round: usize| {
        (0..FILES).try_for_each(|i| fs::write(rig.laptop.join(format!("file{i:03}")), format!("{round} {i}")))
    };
    write(0)?;
    let mut attach = rig.attach(&app, &["--restart", "none"])?;
    for round in 1..6 {
        let first = agent(&attach)?;
        write(2 * round)?;
        // As soon as the first of them is there.
        let deadline = Instant::now() + Duration::from_secs(20);
        let there = |i: usize| fs::read_to_string(rig.pod.join(format!("file{i:03}")));
        while there(0)? != format!("{} 0", 2 * round) {
            ensure!(Instant::now() < deadline, "nothing comes");
        }
        kill(first, Signal::SIGKILL)?;
        // Saved again before the agent is back.
        write(2 * round + 1)?;
        attach.event("disconnected")?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while there(FILES - 1)? != format!("{} {}", 2 * round + 1, FILES - 1) {
            ensure!(Instant::now() < deadline, "round {round}: the last one does not come");
            attach.event_but("synced", "conflict")?;
        }
    }
    rig.run(&["verify"])?.code(0)?;
    attach.events.try_iter().try_for_each(|line| {
        ensure!(!line.contains("\"conflict\""), "{line}");
        Ok(())
    })?;
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

/// A change in the pod is still one after an outage, and said once.
#[test]
#[ignore = "needs: root"]
fn a_conflict_stays_one() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut attach = rig.attach(&app, &["--restart", "none"])?;
    kill(agent(&attach)?, Signal::SIGKILL)?;
    fs::write(rig.pod.join("app.py"), "# theirs\n")?;
    rig.save("two")?;
    back(&mut attach)?;
    attach.event("conflict")?;
    attach.event("synced")?;
    assert_eq!(fs::read_to_string(rig.pod.join("app.py"))?, "# theirs\n");
    kill(agent(&attach)?, Signal::SIGKILL)?;
    attach.event_but("synced", "conflict")?;
    let status = rig.run(&["status"])?.code(0)?;
    ensure!(status.out.contains("conflict: "), "{status:?}");
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn once_does_not_try_for_ever() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut server = Server::start(&rig, &app)?;
    let relay = Relay::start(server.address()?)?;
    relay.cut_after(3_000_000);
    fs::write(rig.laptop.join("large.bin"), random(30_000_000)?)?;
    let mut attach = server.attach_through(&rig, &relay.target(), &["--restart", "none", "--once"])?;
    attach.event("disconnected")?;
    server.kill()?;
    let began = Instant::now();
    let (code, events) = attach.end()?;
    ensure!(code == Some(1), "{code:?} {events:?}");
    ensure!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    Ok(())
}

/// Bytes that no compression makes fewer.
fn random(len: usize) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = vec![0; len];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes).context("random bytes")?;
    Ok(bytes)
}

#[test]
#[ignore = "needs: root"]
fn a_build_that_ends_in_the_gap_is_sent() -> Result<()> {
    let rig = Rig::new()?;
    fs::write(rig.laptop.join("source.txt"), "one")?;
    fs::create_dir(rig.laptop.join("out"))?;
    let app = rig.app()?;
    let mut server = Server::start(&rig, &app)?;
    let build = "cp source.txt out/built.txt";
    let mut attach = server.attach(&rig, &["--restart", "none", "--sync", "out:out", "--build", build])?;
    attach.first_sync()?;
    server.kill()?;
    attach.event("disconnected")?;
    fs::write(rig.laptop.join("source.txt"), "two")?;
    attach.event("built")?;
    server.restart(&rig, &app)?;
    attach.event("reconnected")?;
    attach.event_where("synced", |e| e["files"] == 1)?;
    assert_eq!(fs::read_to_string(rig.pod.join("out/built.txt"))?, "two");
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}
