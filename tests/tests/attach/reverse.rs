//! `--reverse`: a port in the pod leads here, comes back with the session, and leads nowhere else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::rig::{Rig, target};
use crate::ssh::Server;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service on the laptop that turns what it gets around, connection by connection; it ends with the test.
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

/// A port that nobody has just now. An agent of the tests listens on this machine's loopback.
fn free() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn asked(port: u16, words: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(words)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Asks until there is an answer.
fn answers(port: u16) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while asked(port, b"abc").ok().as_deref() != Some(b"cba") {
        ensure!(Instant::now() < deadline, "port {port} does not answer");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_port_in_the_pod_leads_here_also_after_a_reconnect() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut server = Server::start(&rig, &app)?;
    let (here, there) = (service()?, free()?);
    let mut attach =
        server.attach(&rig, &["--restart", "none", "--reverse", &format!("localhost:{here}:{there}")])?;
    attach.first_sync()?;
    // No more than one after the other: the second finds what the first left.
    for words in [b"pod".to_vec(), vec![7; 3_000_000], Vec::new()] {
        let turned: Vec<u8> = words.iter().rev().copied().collect();
        ensure!(asked(there, &words)? == turned, "{} bytes", words.len());
    }
    server.kill()?;
    attach.event("disconnected")?;
    ensure!(asked(there, b"abc").is_err(), "it leads here without an agent");
    server.restart(&rig, &app)?;
    attach.event("reconnected")?;
    answers(there)?;
    assert_eq!(attach.stop()?.code(), Some(0));
    // It goes with the attach, and the agent stays.
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, there)).is_ok() {
        ensure!(Instant::now() < deadline, "port {there} is still listened on");
    }
    Ok(())
}

/// One that does not read holds up its own connection, not the files.
#[test]
#[ignore = "needs: root"]
fn a_service_that_does_not_read_holds_up_no_file() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let server = Server::start(&rig, &app)?;
    let (deaf, there) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, free()?);
    let spec = format!("{}:{there}", deaf.local_addr()?.port());
    let mut attach = server.attach(&rig, &["--restart", "none", "--reverse", &spec])?;
    attach.first_sync()?;
    let mut app_side = TcpStream::connect((Ipv4Addr::LOCALHOST, there))?;
    let _unread = deaf.accept()?;
    app_side.set_write_timeout(Some(Duration::from_secs(2)))?;
    let part = vec![1; 1 << 20];
    // Until nothing goes any more; all buffers on the way are full then.
    ensure!((0..256).any(|_| app_side.write_all(&part).is_err()), "256 MiB went nowhere");
    std::fs::write(rig.laptop.join("new.txt"), "new")?;
    let synced = attach.event_but("synced", "disconnected")?;
    ensure!(synced["files"] == 1, "{synced}");
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_port_that_is_taken_or_leads_nowhere_is_said() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let server = Server::start(&rig, &app)?;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = taken.local_addr()?.port();
    let attach = server.attach(&rig, &["--restart", "none", "--reverse", &port.to_string()])?;
    let (code, events) = attach.end()?;
    let said = rig.said()?;
    ensure!(code == Some(1), "{code:?} {said} {events:?}");
    for word in [format!("port {port} of "), "something in the pod listens there".into(), "hint: ".into()] {
        ensure!(said.contains(&word), "no {word:?} in {said}");
    }
    drop(taken);
    // Nobody is behind it: said once, however often the app tries.
    let (nobody, there) = (free()?, free()?);
    let spec = format!("{nobody}:{there}");
    let mut attach = server.attach(&rig, &["--restart", "none", "--reverse", &spec])?;
    attach.first_sync()?;
    for _ in 0..3 {
        // Refused, or closed without a word.
        ensure!(asked(there, b"abc").unwrap_or_default().is_empty());
    }
    let word = format!("127.0.0.1:{nobody} does not answer here");
    let deadline = Instant::now() + PATIENCE;
    while !rig.said()?.contains(&word) {
        ensure!(Instant::now() < deadline, "{}", rig.said()?);
    }
    assert_eq!(attach.stop()?.code(), Some(0));
    assert_eq!(rig.said()?.matches(&word).count(), 1, "{}", rig.said()?);
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn what_cannot_be_reversed_is_refused_before_anything_else() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let pid = target(&app);
    rig.run(&["attach", &pid, "--reverse", "5432"])?.code(2)?.says(&[
        "--reverse",
        "this machine",
        "hint: ",
    ])?;
    rig.run(&["attach", &pid, "--reverse", "db:x"])?.code(2)?.says(&["5432:15432"])?;
    let twice = ["attach", "pod/x", "--reverse", "5432", "--reverse", "5433:5432"];
    rig.run(&twice)?.code(2)?.says(&["5432", "twice", "hint: "]).context("twice")?;
    Ok(())
}
