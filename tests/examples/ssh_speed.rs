//! Measures the SSH link on loopback: bytes per second up and down, and small round trips.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use devsync_agent::ssh::{HostKey, Limits, Registered, SshConfig, serve};
use devsync_cli::transport::ssh::{PinnedKey, SshTarget, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

const BLOCK: usize = 256 * 1024;
const BYTES: usize = 1 << 30;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let identity = directory.path().join("id");
    Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&identity).status()?;
    let host_key = HostKey::ephemeral()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let target = SshTarget {
        addr: listener.local_addr()?.to_string(),
        user: "bench".into(),
        host_key: PinnedKey::parse(&host_key.public())?,
        identity: identity.clone(),
        reverse: Default::default(),
        session: String::new(),
    };
    let authorized_keys = identity.with_extension("pub");
    let config = SshConfig {
        host_key,
        authorized_keys: Some(authorized_keys),
        registered: Arc::new(Registered::default()),
        target: "auto".parse()?,
        open_forwards: false,
        limits: Limits::default(),
    };
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(config, listener, Arc::new(|r, w, _| session(r, w)), shutdown.clone()));

    let begin = Instant::now();
    let mut link = connect(&target).await?;
    println!("connect {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    let block = vec![7; BLOCK];
    let mut trips = Vec::new();
    for _ in 0..2000 {
        let begin = Instant::now();
        link.writer.write_all(b"p").await?;
        link.reader.read_exact(&mut [0]).await?;
        trips.push(begin.elapsed());
    }
    trips.sort();
    println!("round trip p50 {:?} p99 {:?}", trips[1000], trips[1980]);

    let begin = Instant::now();
    link.writer.write_all(b"u").await?;
    for _ in 0..BYTES / BLOCK {
        link.writer.write_all(&block).await?;
    }
    link.reader.read_exact(&mut [0]).await?;
    println!("up {:.0} MB/s", BYTES as f64 / begin.elapsed().as_secs_f64() / 1e6);

    let begin = Instant::now();
    link.writer.write_all(b"d").await?;
    let mut buffer = vec![0; BLOCK];
    for _ in 0..BYTES / BLOCK {
        link.reader.read_exact(&mut buffer).await?;
    }
    println!("down {:.0} MB/s", BYTES as f64 / begin.elapsed().as_secs_f64() / 1e6);
    link.close().await;
    shutdown.cancel();
    server.await?;
    Ok(())
}

/// `p`: answers a byte. `u`: takes the bytes, then answers one. `d`: gives the bytes.
fn session(mut reader: Box<dyn Read + Send>, mut writer: Box<dyn Write + Send>) {
    let mut command = [0];
    let mut block = vec![0; BLOCK];
    while reader.read_exact(&mut command).is_ok() {
        let done = match &command {
            b"u" => (0..BYTES / BLOCK).try_for_each(|_| reader.read_exact(&mut block)),
            b"d" => (0..BYTES / BLOCK).try_for_each(|_| writer.write_all(&block)),
            _ => Ok(()),
        };
        if done.is_err() || (command != *b"d" && writer.write_all(b"!").is_err()) {
            return;
        }
    }
}
