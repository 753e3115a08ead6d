//! `ssh -L`, `-R`, `-D` and unix sockets, with real traffic.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use devsync_tests::app::UID;

use crate::rig::{Rig, Root, output, run, said, stop, until};

/// `ssh -N` with some forward, until dropped.
struct Forward(Child);

impl Forward {
    fn start(rig: &Rig, arguments: &[&str]) -> Self {
        let mut ssh = rig.tool("ssh");
        ssh.args(["-N", "-o", "ExitOnForwardFailure=yes"]).args(arguments).arg("pod");
        Self(ssh.spawn().expect("ssh"))
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        stop(&mut self.0);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("address").port()
}

/// Gives back everything that it gets, to the end of it; for `count` connections.
fn echo(listener: TcpListener, count: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let mut stream = stream.expect("accepted");
            thread::spawn(move || {
                let mut back = stream.try_clone().expect("cloned");
                let _ = std::io::copy(&mut stream, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
        }
    })
}

/// Sends and reads back some megabytes at once, and the end.
fn round_trip(mut stream: TcpStream) {
    let bytes: Vec<u8> = (0..16_u32 << 20).map(|n| (n % 253) as u8).collect();
    let mut writer = stream.try_clone().expect("cloned");
    let sent = bytes.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).expect("written");
        writer.shutdown(Shutdown::Write).expect("ended");
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("read");
    writing.join().expect("joined");
    assert!(back == bytes, "{} bytes of {}", back.len(), bytes.len());
}

#[track_caller]
fn connect(port: u16) -> TcpStream {
    let mut found = None;
    until("the port listens", || {
        found = TcpStream::connect(("127.0.0.1", port)).ok();
        found.is_some()
    });
    found.expect("connected")
}

#[test]
#[ignore = "needs: root"]
fn a_local_port_leads_into_the_pod() {
    let rig = Rig::start(Root::Debian);
    let service = TcpListener::bind("127.0.0.1:0").expect("bound");
    let (port, to) = (free_port(), service.local_addr().expect("address").port());
    let serving = echo(service, 3);
    let forward = Forward::start(&rig, &["-L", &format!("{port}:localhost:{to}")]);
    // The two at once: neither waits for the other.
    let idle = connect(port);
    round_trip(connect(port));
    drop(idle);
    round_trip(connect(port));
    serving.join().expect("joined");
    drop(forward);
}

#[test]
#[ignore = "needs: root"]
fn a_port_of_the_pod_leads_to_the_laptop() {
    let rig = Rig::start(Root::Debian);
    let service = TcpListener::bind("127.0.0.1:0").expect("bound");
    let (port, to) = (free_port(), service.local_addr().expect("address").port());
    let serving = echo(service, 2);
    let forward = Forward::start(&rig, &["-R", &format!("{port}:127.0.0.1:{to}")]);
    round_trip(connect(port));
    round_trip(connect(port));
    serving.join().expect("joined");
    drop(forward);
    // The port is free again once the client is gone.
    until("the port is free", || TcpListener::bind(("127.0.0.1", port)).is_ok());
}

#[test]
#[ignore = "needs: root"]
fn a_port_that_nobody_chose_is_told_and_can_be_cancelled() {
    let rig = Rig::start(Root::Debian);
    let control = format!("ControlPath={}", rig.path("control").display());
    let master = Forward::start(&rig, &["-o", &control, "-M"]);
    until("the master listens", || rig.path("control").exists());
    let forward = |what: &str, port: u16| {
        let spec = format!("{port}:127.0.0.1:1");
        output(rig.tool("ssh").args(["-o", &control, "-O", what, "-R", &spec, "pod"]))
    };
    let told = forward("forward", 0);
    let port: u16 =
        String::from_utf8_lossy(&told.stdout).trim().parse().unwrap_or_else(|_| panic!("{told:?}"));
    assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "nobody listens on {port}");
    let chosen = free_port();
    assert!(forward("forward", chosen).status.success());
    assert!(forward("cancel", chosen).status.success());
    until("it is cancelled", || TcpListener::bind(("127.0.0.1", chosen)).is_ok());
    drop(master);
}

#[test]
#[ignore = "needs: root"]
fn a_socks_proxy_reaches_the_pod_and_nothing_beyond() {
    let rig = Rig::start(Root::Debian);
    let service = TcpListener::bind("127.0.0.1:0").expect("bound");
    let (port, to) = (free_port(), service.local_addr().expect("address").port());
    let serving = echo(service, 1);
    let forward = Forward::start(&rig, &["-D", &port.to_string()]);
    let socks = |address: [u8; 4], to: u16| {
        let mut stream = connect(port);
        stream.write_all(&[5, 1, 0]).expect("greeted");
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).expect("an answer");
        let mut request = vec![5, 1, 0, 1];
        request.extend(address);
        request.extend(to.to_be_bytes());
        stream.write_all(&request).expect("asked");
        // A refused channel ends the connection.
        let mut answer = [0; 10];
        let answered = stream.read_exact(&mut answer);
        (answered.is_ok() && answer[1] == 0).then_some(stream)
    };
    round_trip(socks([127, 0, 0, 1], to).expect("reached"));
    assert!(socks([192, 0, 2, 1], 80).is_none());
    assert!(socks([169, 254, 169, 254], 80).is_none());
    serving.join().expect("joined");
    drop(forward);
    assert!(rig.log().contains("not the pod's own"), "{}", rig.log());
}

#[test]
#[ignore = "needs: root"]
fn everywhere_means_the_loopback() {
    let rig = Rig::start(Root::Debian);
    let port = free_port();
    let forward = Forward::start(&rig, &["-R", &format!("0.0.0.0:{port}:127.0.0.1:1")]);
    drop(connect(port));
    let listening = run(Command::new("ss").args(["-Hltn", &format!("sport = :{port}")]));
    assert!(
        listening.contains(&format!("127.0.0.1:{port}")) && !listening.contains("0.0.0.0:{port}"),
        "{listening}"
    );
    drop(forward);
}

#[test]
#[ignore = "needs: root"]
fn unix_sockets_are_the_apps_both_ways() {
    let rig = Rig::start(Root::Scratch);
    let inside = rig.path("root/srv/app");
    let service = UnixListener::bind(inside.join("service")).expect("bound");
    chown(inside.join("service"), Some(UID), Some(UID)).expect("owner");
    // A link that would lead elsewhere from the agent's root.
    std::os::unix::fs::symlink("/srv/app/service", inside.join("link")).expect("linked");
    let here = rig.path("here");
    let forward = Forward::start(&rig, &["-L", &format!("{}:/srv/app/link", here.display())]);
    until("the socket is there", || here.exists());
    let mut stream = UnixStream::connect(&here).expect("connected");
    let (mut served, _) = service.accept().expect("accepted");
    stream.write_all(b"ping").expect("written");
    let mut word = [0; 4];
    served.read_exact(&mut word).expect("read");
    assert_eq!(&word, b"ping");
    drop((stream, served, forward));

    let laptop = UnixListener::bind(rig.path("laptop/service")).expect("bound");
    let spec = format!("/srv/app/back:{}", rig.path("laptop/service").display());
    let forward = Forward::start(&rig, &["-R", &spec]);
    until("the pod's socket is there", || inside.join("back").exists());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(inside.join("back")).expect("metadata"));
    assert_eq!(owner, UID);
    let mut stream = UnixStream::connect(inside.join("back")).expect("connected");
    let (mut served, _) = laptop.accept().expect("accepted");
    served.write_all(b"pong").expect("written");
    stream.read_exact(&mut word).expect("read");
    assert_eq!(&word, b"pong");
    drop((stream, served, forward));
    until("the name is gone", || !inside.join("back").exists());
    // What the name is in the agent's root is never asked.
    let outside = UnixListener::bind(rig.path("outside")).expect("bound");
    let name = rig.path("outside").display().to_string();
    let refused = output(rig.tool("ssh").args(["-W", "x"]).arg("pod").stdin(Stdio::null()));
    assert!(!refused.status.success(), "{}", said(&refused));
    let forward = Forward::start(&rig, &["-L", &format!("{}:{name}", rig.path("there").display())]);
    until("the socket is there", || rig.path("there").exists());
    let mut stream = UnixStream::connect(rig.path("there")).expect("connected");
    assert_eq!(stream.read(&mut word).ok(), Some(0));
    outside.set_nonblocking(true).expect("set");
    assert!(outside.accept().is_err(), "the agent's own socket was reached");
    drop(forward);
}
