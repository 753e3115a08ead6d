//! A server that means harm: what it may open on the laptop is nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use devsync_cli::transport::ssh::{PinnedKey, SshTarget, connect};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(100);

/// A server that lets anybody in and then opens channels of its own to the client; it tells which were taken.
struct Forward(mpsc::Sender<(&'static str, bool)>);

impl server::Handler for Forward {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        let (handle, told) = (session.handle(), self.0.clone());
        tokio::spawn(async move {
            let opened = [
                ("session", handle.channel_open_session().await.is_ok()),
                ("direct-tcpip", handle.channel_open_direct_tcpip("127.0.0.1", 22, "x", 1).await.is_ok()),
                ("direct-streamlocal", handle.channel_open_direct_streamlocal("/run/x").await.is_ok()),
                (
                    "forwarded-tcpip",
                    handle.channel_open_forwarded_tcpip("127.0.0.1", 22, "x", 1).await.is_ok(),
                ),
                ("forwarded-streamlocal", handle.channel_open_forwarded_streamlocal("/run/x").await.is_ok()),
                ("x11", handle.channel_open_x11("127.0.0.1", 6000).await.is_ok()),
                ("agent", handle.channel_open_agent().await.is_ok()),
            ];
            for one in opened {
                told.send(one).await.expect("heard");
            }
        });
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_opens_nothing_on_the_laptop() {
    let directory = tempfile::tempdir().expect("temp directory");
    let host = keygen(&directory, "host");
    let key = russh::keys::load_secret_key(&host, None).expect("a key");
    let public = fs::read_to_string(host.with_extension("pub")).expect("read");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let target = SshTarget {
        addr: listener.local_addr().expect("address").to_string(),
        user: "me".into(),
        identity: keygen(&directory, "id"),
        host_key: PinnedKey::parse(&public).expect("a key"),
        reverse: Default::default(),
        session: String::new(),
    };
    let (told, mut hears) = mpsc::channel(8);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepted");
        let config = server::Config { keys: vec![key], ..Default::default() };
        let running = server::run_stream(Arc::new(config), stream, Forward(told)).await;
        let _ = running.expect("a handshake").await;
    });
    let transport = timeout(DEADLINE, connect(&target)).await.expect("in time").expect("connected");
    let mut kinds = 0;
    while let Some((kind, is_open)) = timeout(DEADLINE, hears.recv()).await.expect("in time") {
        assert!(!is_open, "the client took a channel: {kind}");
        kinds += 1;
        if kinds == 7 {
            break;
        }
    }
    assert_eq!(kinds, 7);
    transport.close().await;
    timeout(DEADLINE, server).await.expect("in time").expect("ended");
}

fn keygen(directory: &TempDir, name: &str) -> PathBuf {
    let path = directory.path().join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.expect("ssh-keygen").success());
    path
}
