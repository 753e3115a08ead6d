//! A server in this process whose sessions echo, and an OpenSSH client that knows its host key.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use devsync_agent::ssh::{Caller, HostKey, Limits, Registered, SessionFn, SshConfig, serve};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) directory: TempDir,
    /// Sessions that have ended.
    pub(crate) ended: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that echoes, with one authorized key.
    pub(crate) fn start() -> Self {
        Self::with(Limits::default(), Arc::new(|reader, writer, _| echo(reader, writer)))
    }

    pub(crate) fn with(limits: Limits, session: Arc<SessionFn>) -> Self {
        let directory = tempfile::tempdir().expect("temp directory");
        let server = Self::listen(directory, limits, session);
        server.keygen("id", "ed25519");
        server.authorize(&server.public("id"));
        server
    }

    fn listen(directory: TempDir, limits: Limits, session: Arc<SessionFn>) -> Self {
        let host_key = HostKey::kept(&directory.path().join("state")).expect("host key");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("address");
        fs::write(directory.path().join("known_hosts"), host_key.known_hosts_line(address)).expect("written");
        let authorized_keys = Some(directory.path().join("keys"));
        let registered = Arc::new(Registered::default());
        let config = SshConfig {
            host_key,
            authorized_keys,
            registered,
            target: "pid/4194304".parse().expect("a target"),
            open_forwards: false,
            limits,
        };
        let (ended, shutdown) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let counted: Arc<SessionFn> = {
            let ended = Arc::clone(&ended);
            Arc::new(move |reader, writer, caller: Caller| {
                session(reader, writer, caller);
                ended.fetch_add(1, Ordering::SeqCst);
            })
        };
        let thread = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.expect("runtime").block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
                    serve(config, listener, counted, shutdown).await;
                });
            }
        });
        Self { address, directory, ended, shutdown, thread: Some(thread) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a key pair.
    pub(crate) fn keygen(&self, name: &str, kind: &str) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-C", name, "-t"]);
        command.args(kind.split(' ')).arg("-f").arg(self.path(name));
        assert!(command.status().expect("ssh-keygen").success());
    }

    pub(crate) fn public(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.pub"))).expect("public key")
    }

    /// Replaces the authorized keys.
    pub(crate) fn authorize(&self, lines: &str) {
        self.authorize_with_mode(lines, 0o644);
    }

    pub(crate) fn authorize_with_mode(&self, lines: &str, mode: u32) {
        let next = self.path("keys.next");
        fs::write(&next, lines).expect("written");
        fs::set_permissions(&next, fs::Permissions::from_mode(mode)).expect("chmod");
        fs::rename(next, self.path("keys")).expect("renamed");
    }

    /// An OpenSSH client with these keys and no other, without a configuration of its own.
    pub(crate) fn client(&self, identities: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "100", "ssh", "-F", "none"]);
        for option in
            ["BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "IdentityAgent=none"]
        {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()));
        command.args(["-o", "GlobalKnownHostsFile=none", "-p", &self.address.port().to_string()]);
        for identity in identities {
            command.arg("-i").arg(self.path(identity));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `ssh OPTIONS 127.0.0.1 -s devsync` with this input.
    pub(crate) fn subsystem(&self, identities: &[&str], options: &[&str], input: &[u8]) -> Output {
        let mut command = self.client(identities);
        command.args(options).args(["-s", "anyone@127.0.0.1", "devsync"]).stdin(Stdio::piped());
        let mut child = command.spawn().expect("ssh");
        feed(&mut child, input);
        child.wait_with_output().expect("ssh ends")
    }

    /// Is a login with this key possible?
    pub(crate) fn logs_in(&self, identity: &str) -> bool {
        let output = self.subsystem(&[identity], &[], b"hello");
        output.status.success() && output.stdout == b"hello"
    }

    /// Stops the server, as SIGTERM does; returns when everything is joined.
    pub(crate) fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends cleanly");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes the input on a thread of its own and closes it.
fn feed(child: &mut Child, input: &[u8]) {
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    std::thread::spawn(move || {
        // A client that was refused reads nothing.
        let _ = stdin.write_all(&input);
    });
}

/// Sends everything back.
pub(crate) fn echo(mut reader: Box<dyn Read + Send>, mut writer: Box<dyn Write + Send>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        if writer.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes that do not compress and do not repeat.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
