//! The client's SSH transport against the agent's SSH server, in process.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use devsync_agent::ssh::{HostKey, Limits, Registered, SessionFn, SshConfig, serve};
use devsync_cli::transport::Transport;
use devsync_cli::transport::ssh::{PinnedKey, SshError, SshTarget, connect};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const MIB: usize = 1024 * 1024;
/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(100);

struct Server {
    directory: TempDir,
    target: SshTarget,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(session: Arc<SessionFn>) -> Self {
        let directory = tempfile::tempdir().expect("temp directory");
        let identity = keygen(&directory, "id", "");
        fs::copy(identity.with_extension("pub"), directory.path().join("keys")).expect("copied");
        let host_key = HostKey::ephemeral().expect("host key");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("address").to_string();
        let pinned = PinnedKey::parse(&host_key.public()).expect("a key");
        let target = SshTarget {
            addr,
            user: "me".into(),
            identity,
            host_key: pinned,
            reverse: Default::default(),
            session: String::new(),
        };
        let shutdown = CancellationToken::new();
        let limits = Limits { drain: Duration::from_millis(500), ..Limits::default() };
        let authorized_keys = Some(directory.path().join("keys"));
        let registered = Arc::new(Registered::default());
        let config = SshConfig {
            host_key,
            authorized_keys,
            registered,
            target: "auto".parse().expect("a target"),
            open_forwards: false,
            limits,
        };
        let task = tokio::spawn(serve(config, listener, session, shutdown.clone()));
        Self { directory, target, shutdown, task }
    }

    async fn connect(&self) -> Transport {
        connect(&self.target).await.expect("connected")
    }

    async fn refuses(&self, target: &SshTarget) -> SshError {
        connect(target).await.err().expect("refused")
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task).await.expect("in time").expect("ended");
    }
}

fn keygen(directory: &TempDir, name: &str, passphrase: &str) -> PathBuf {
    let path = directory.path().join(name);
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f"])
        .arg(&path)
        .status();
    assert!(status.expect("ssh-keygen").success());
    path
}

fn echo() -> Arc<SessionFn> {
    Arc::new(|mut reader, mut writer, _| {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            if writer.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_come_back_and_the_end_is_seen() {
    let server = Server::start(echo()).await;
    let mut transport = server.connect().await;
    transport.writer.write_all(b"hello").await.expect("written");
    transport.writer.shutdown().await.expect("ended");
    let mut answer = Vec::new();
    timeout(DEADLINE, transport.reader.read_to_end(&mut answer)).await.expect("in time").expect("read");
    assert_eq!(answer, b"hello");
    transport.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_at_once_do_not_deadlock() {
    // More than all windows and socket buffers together, from both ends at the same time.
    let server = Server::start(Arc::new(|mut reader, mut writer, _| {
        let writing = std::thread::spawn(move || {
            for _ in 0..64 {
                writer.write_all(&vec![7; MIB]).expect("written");
            }
            // Not dropped before everything was read: its end is what the client leaves on.
            writer
        });
        let mut count = 0;
        let mut buffer = vec![0; 64 * 1024];
        while count < 64 * MIB {
            let read = reader.read(&mut buffer).expect("read");
            assert!(read > 0, "the input ended after {count} bytes");
            count += read;
        }
        drop(writing.join().expect("joined"));
    }))
    .await;
    let mut transport = server.connect().await;
    let (mut reader, mut writer) = (transport.reader, transport.writer);
    let sending = tokio::spawn(async move {
        for _ in 0..64 {
            writer.write_all(&vec![7; MIB]).await.expect("written");
        }
        writer
    });
    let mut received = Vec::new();
    timeout(DEADLINE, reader.read_to_end(&mut received)).await.expect("in time").expect("read");
    assert_eq!(received.len(), 64 * MIB);
    transport.writer = sending.await.expect("joined");
    transport.reader = reader;
    transport.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_key_gets_no_byte() {
    let server = Server::start(Arc::new(|_, _, _| panic!("no session may begin"))).await;
    let other = HostKey::ephemeral().expect("host key");
    let host_key = PinnedKey::parse(&other.public()).expect("a key");
    let error = server.refuses(&SshTarget { host_key, ..server.target.clone() }).await;
    assert!(matches!(error, SshError::HostKey { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&server.target.addr) && text.contains(&other.fingerprint()), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_told_what_to_do() {
    let server = Server::start(echo()).await;
    let identity = keygen(&server.directory, "stranger", "");
    let error = server.refuses(&SshTarget { identity, ..server.target.clone() }).await;
    assert!(matches!(error, SshError::Refused { .. }), "{error:?}");
    assert!(error.hint().expect("a hint").contains("stranger.pub"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_file_that_others_can_read_is_refused() {
    let server = Server::start(echo()).await;
    fs::set_permissions(&server.target.identity, fs::Permissions::from_mode(0o644)).expect("chmod");
    let error = server.refuses(&server.target).await;
    assert_eq!(error.hint(), Some(format!("chmod 600 {}", server.target.identity.display())));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_identity_without_a_terminal_names_the_ways_out() {
    let server = Server::start(echo()).await;
    let identity = keygen(&server.directory, "locked", "secret");
    let error = server.refuses(&SshTarget { identity, ..server.target.clone() }).await;
    let hint = error.hint().expect("a hint");
    assert!(hint.contains("ssh-add") && hint.contains("ssh-keygen -p"), "{hint}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listening_is_named() {
    let server = Server::start(echo()).await;
    let target = server.target.clone();
    server.stop().await;
    // The directory is gone with the server: an identity that can be read is needed again.
    let directory = tempfile::tempdir().expect("temp directory");
    let identity = keygen(&directory, "id", "");
    let error = connect(&SshTarget { identity, ..target.clone() }).await.err().expect("refused");
    assert_eq!(error.to_string(), format!("cannot connect to {}", target.addr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_agent_is_the_end_of_the_stream() {
    let server = Server::start(echo()).await;
    let mut transport = server.connect().await;
    transport.writer.write_all(b"x").await.expect("written");
    transport.reader.read_exact(&mut [0]).await.expect("echo");
    server.stop().await;
    let end = timeout(DEADLINE, transport.reader.read(&mut [0])).await.expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    transport.close().await;
}

/// The name lists of a KEXINIT (RFC 4253, 7.1), without the names that only mark one side.
async fn offered(stream: &mut tokio::net::TcpStream) -> Vec<Vec<String>> {
    stream.write_all(b"SSH-2.0-test\r\n").await.expect("written");
    while !matches!(stream.read_u8().await.expect("a greeting"), b'\n') {}
    let mut packet = vec![0; usize::try_from(stream.read_u32().await.expect("a length")).expect("a length")];
    stream.read_exact(&mut packet).await.expect("a packet");
    assert_eq!(packet[1], 20, "no KEXINIT");
    let mut rest = &packet[18..];
    let mut list = || {
        let (len, after) = rest.split_at(4);
        let len = u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
        let (names, after) = after.split_at(len);
        rest = after;
        let names = String::from_utf8(names.to_vec()).expect("text");
        let marks = |name: &&str| !name.starts_with("ext-info-") && !name.starts_with("kex-strict-");
        names.split(',').filter(marks).map(str::to_owned).collect::<Vec<_>>()
    };
    (0..8).map(|_| list()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_and_agent_offer_the_same_algorithms() {
    let server = Server::start(echo()).await;
    let mut stream = tokio::net::TcpStream::connect(&server.target.addr).await.expect("connected");
    let agent = offered(&mut stream).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("address").to_string();
    let target = SshTarget { addr, ..server.target.clone() };
    let client = tokio::spawn(async move { connect(&target).await.err() });
    let (mut stream, _) = timeout(DEADLINE, listener.accept()).await.expect("in time").expect("accepted");
    let asked = offered(&mut stream).await;
    drop(stream);
    client.await.expect("joined").expect("refused");
    for (n, what) in ["key exchanges", "host keys", "ciphers", "ciphers", "MACs", "MACs"].iter().enumerate() {
        // The agent has one host key; the client would take others.
        if n == 1 {
            assert!(agent[n].iter().all(|key| asked[n].contains(key)), "{what}: {agent:?} {asked:?}");
        } else {
            assert_eq!(agent[n], asked[n], "{what}");
        }
    }
    assert_eq!((&agent[6], &asked[6]), (&vec!["none".to_owned()], &vec!["none".to_owned()]));
    server.stop().await;
}
