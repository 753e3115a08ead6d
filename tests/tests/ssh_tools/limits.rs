//! Clients that mean harm or have trouble: many of them, silent ones, wrong ones.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::python::python;
use crate::rig::{Rig, Root, output, run, stop, until};

/// Resident kilobytes of a process.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// One of the flood's connections; every second one says who it is, and none says more.
fn silent(port: u16, n: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    if n.is_multiple_of(2) {
        stream.write_all(b"SSH-2.0-silent\r\n")?;
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// How long a login and a command take.
fn login_takes(rig: &Rig) -> Duration {
    let begin = Instant::now();
    assert_eq!(run(rig.tool("ssh").args(["-o", "ConnectTimeout=20", "pod", "echo in"])), "in\n");
    begin.elapsed()
}

/// A second, or what that is on a machine that is busy with other things.
fn a_second(undisturbed: Duration) -> Duration {
    Duration::from_secs(1).max(undisturbed * 10)
}

#[test]
#[ignore = "needs: root"]
fn a_thousand_silent_connections_keep_nobody_out() {
    let rig = Rig::start(Root::Debian);
    let undisturbed = login_takes(&rig);
    let before = resident(rig.agent());
    let held: Vec<TcpStream> = (0..1000).map(|n| silent(rig.port, n).expect("connected")).collect();
    let login = login_takes(&rig);
    assert!(login < a_second(undisturbed), "{login:?}, undisturbed {undisturbed:?}");
    let grown = resident(rig.agent()).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} kB more");
    // The log tells of them, and not of each.
    let lines = rig.log().lines().count();
    assert!(rig.log().contains("too many connections wait for a login") && lines < 100, "{}", rig.log());
    eprintln!("login {login:?}, undisturbed {undisturbed:?}, {grown} kB, {lines} lines");
    drop(held);
}

#[test]
#[ignore = "needs: root"]
fn a_thousand_that_come_again_and_again_keep_nobody_out() {
    let rig = Rig::start(Root::Debian);
    let undisturbed = login_takes(&rig);
    let before = resident(rig.agent());
    let (port, stop, again) = (rig.port, Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (stopped, come_again) = (Arc::clone(&stop), Arc::clone(&again));
    let flood = std::thread::spawn(move || {
        let mut held: Vec<_> = (0..1000).map(|n| silent(port, n)).collect();
        while !stopped.load(SeqCst) {
            for (n, stream) in held.iter_mut().enumerate() {
                let mut greeting = [0; 4096];
                let ended = match stream {
                    Ok(stream) => match stream.read(&mut greeting) {
                        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
                        Ok(count) => count == 0,
                    },
                    Err(_) => true,
                };
                if ended {
                    *stream = silent(port, n);
                    come_again.fetch_add(1, SeqCst);
                }
            }
        }
    });
    until("they come again", || again.load(SeqCst) > 200);
    let logins: Vec<Duration> = (0..30).map(|_| login_takes(&rig)).collect();
    stop.store(true, SeqCst);
    flood.join().expect("joined");
    let grown = resident(rig.agent()).saturating_sub(before);
    eprintln!("logins {logins:?}, undisturbed {undisturbed:?}, {grown} kB, {again:?} came again");
    assert!(logins.iter().all(|login| *login < a_second(undisturbed)), "{logins:?}");
    assert!(grown < 32 * 1024, "{grown} kB more");
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

/// From the program's `offered N connections M`.
fn offered(line: &str) -> usize {
    line.split(' ').nth(1).and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// Bad keys while good ones log in: how many were offered, how long the logins took, what the agent grew by in kB.
fn flood(rig: &Rig, seconds: usize, keys: usize, addresses: usize) -> (usize, Vec<Duration>, u64) {
    let before = resident(rig.agent());
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/ssh_tools/flood_keys.py");
    let mut flood = Command::new("timeout");
    flood.arg("600").arg(python()).arg(script).arg(rig.port.to_string()).arg(rig.path("known"));
    flood.args([seconds, keys, addresses].map(|number| number.to_string()));
    let mut flood = flood.stdout(Stdio::piped()).spawn().expect("python");
    let mut said = BufReader::new(flood.stdout.take().expect("piped")).lines();
    assert_eq!(said.next().expect("a line").expect("read"), "begun");
    let logins: Vec<Duration> = (0..20).map(|_| login_takes(rig)).collect();
    let last = said.next().expect("a line").expect("read");
    let grown = resident(rig.agent()).saturating_sub(before);
    assert!(flood.wait().expect("ended").success(), "{last}");
    eprintln!("{last}, logins {logins:?}, {grown} kB");
    (offered(&last), logins, grown)
}

#[test]
#[ignore = "needs: root"]
fn bad_keys_without_end_are_capped_and_keep_nobody_out() {
    const SECONDS: usize = 10;
    let rig = Rig::start(Root::Debian);
    let undisturbed = login_takes(&rig);
    let (offered, logins, grown) = flood(&rig, SECONDS, usize::MAX >> 1, 1);
    // Ten in a second, those that began when there was no queue yet, and each of fifty after five seconds at least.
    assert!(offered < 10 * SECONDS + 50 * SECONDS.div_ceil(5) + 50, "{offered}");
    assert!(logins.iter().all(|login| *login < a_second(undisturbed)), "{logins:?}");
    assert!(grown < 32 * 1024, "{grown} kB more");
    assert!(rig.log().matches("login refused").count() <= offered, "{}", rig.log());
}

/// Each address has turns of its own, so that the number is had in a minute; one would need a quarter of an hour.
#[test]
#[ignore = "needs: root"]
fn ten_thousand_bad_keys_from_many_addresses_keep_nobody_out() {
    const KEYS: usize = 10_000;
    let rig = Rig::start(Root::Debian);
    let undisturbed = login_takes(&rig);
    let begin = Instant::now();
    let (offered, logins, grown) = flood(&rig, 500, KEYS, 200);
    eprintln!("{offered} keys in {:?}", begin.elapsed());
    assert!(offered >= KEYS, "{offered}");
    // The flood itself takes more than one of the cores.
    assert!(median(&logins) < a_second(undisturbed), "{logins:?}");
    assert!(logins.iter().all(|login| *login < 10 * a_second(undisturbed)), "{logins:?}");
    assert!(grown < 32 * 1024, "{grown} kB more");
    assert_eq!(rig.says("echo in"), "in\n");
}

#[test]
#[ignore = "needs: root"]
fn wrong_keys_are_counted_and_cut() {
    let rig = Rig::start(Root::Debian);
    for n in 0..5 {
        let key = rig.path(&format!("wrong{n}"));
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key));
    }
    let mut ssh = rig.tool("ssh");
    for n in 0..5 {
        ssh.arg("-i").arg(rig.path(&format!("wrong{n}")));
    }
    // The good one comes too late: after three the connection is good for nothing.
    let refused = output(ssh.args(["-o", "LogLevel=VERBOSE", "-o", "IdentityFile=none", "pod", "true"]));
    assert!(!refused.status.success(), "{refused:?}");
    assert!(rig.log().matches("login refused").count() <= 4, "{}", rig.log());
    assert_eq!(rig.says("echo in"), "in\n");
}

#[test]
#[ignore = "needs: root"]
fn garbage_and_huge_packets_end_the_connection_alone() {
    let rig = Rig::start(Root::Debian);
    for garbage in [&b"\xff\xff\xff\xff"[..], &b"SSH-2.0-x\r\n\xff\xff\xff\xff\0\0\0\0"[..], &[b'a'; 70_000]]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", rig.port)).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(40))).expect("set");
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        // The end comes, one way or the other.
        if let Err(error) = stream.read_to_end(&mut said) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    // An SFTP packet of 4 GiB.
    let mut sftp = rig.tool("ssh");
    let mut sftp = sftp.args(["-s", "pod", "sftp"]).stdin(Stdio::piped()).spawn().expect("ssh");
    sftp.stdin.as_mut().expect("piped").write_all(&[0xff; 64]).expect("written");
    sftp.wait().expect("ended");
    until("it is in the log", || rig.log().contains("4294967295"));
    assert_eq!(rig.says("echo in"), "in\n");
}

#[test]
#[ignore = "needs: root"]
fn a_client_that_does_not_read_costs_a_bounded_amount() {
    let rig = Rig::start(Root::Debian);
    assert_eq!(rig.says("echo warm"), "warm\n");
    let before = resident(rig.agent());
    let mut ssh = rig
        .ssh("echo begun >&2; cat /dev/zero")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh");
    let mut word = [0; 5];
    ssh.stderr.as_mut().expect("piped").read_exact(&mut word).expect("begun");
    // Another is served meanwhile, again and again.
    for _ in 0..20 {
        assert_eq!(rig.says("echo in"), "in\n");
    }
    let grown = resident(rig.agent()).saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} kB more");
    stop(&mut ssh);
    until("its program is gone", || rig.says("pgrep -cf '^cat /dev/zero' || true").trim() == "0");
}

#[test]
#[ignore = "needs: root"]
fn an_app_that_is_gone_is_said() {
    let rig = Rig::start(Root::Debian);
    rig.says("kill -9 $(pgrep -f '^sleep infinity')");
    let refused = output(&mut rig.ssh("true"));
    assert_eq!(refused.status.code(), Some(255));
    assert!(crate::rig::said(&refused).contains("hint:"), "{}", crate::rig::said(&refused));
    assert!(!rig.sftp("ls").status.success());
}
