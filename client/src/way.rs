//! A stream to the SSH server of a target's agent on which nothing was said yet, for whoever speaks SSH over it:
//! OpenSSH behind `devsync proxy`, or a shell of our own. The server's key is known from elsewhere, never from the stream.

use std::sync::Arc;

use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::cli::TargetWord;
use crate::cluster::{self, Access, PodTarget, Raw, Said};
use crate::connect::{Route, host_key_for, identity_for, pod_of, tell_container, tell_stdio};
use crate::error::CommandError;
use crate::program::{Program, Wish};
use crate::transport::ssh::{PinnedKey, ProgramChannel, ProgramKey};
use crate::transport::{Link, Transport, container, stdio};

/// A host key's line is some hundred bytes.
const LONGEST_LINE: usize = 1024;

/// The way to an SSH server.
pub struct Way {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The key that the server must prove.
    pub host_key: PinnedKey,
    /// What errors call the server.
    pub name: String,
    pub pod: Option<PodTarget>,
    /// The key was; else the agent knows those that it was given.
    pub is_registered: bool,
    end: Carrier,
}

/// What carries the stream.
enum Carrier {
    Child(Box<dyn Link>),
    PortForward(Said),
    Socket,
}

impl Way {
    /// What ended it, as far as its carrier knows; the streams must have been dropped before.
    pub async fn said(end: WayEnd) -> Option<String> {
        match end.0 {
            Carrier::Child(link) => link.close().await,
            Carrier::PortForward(said) => said.error(),
            Carrier::Socket => None,
        }
    }

    /// The streams by themselves, and what to ask when they have ended.
    pub fn split(self) -> (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>, WayEnd) {
        (self.reader, self.writer, WayEnd(self.end))
    }
}

/// Runs `wish` through the agent's SSH server in the app's root, with a key of this moment where one can be registered,
/// else with the person's; no words are a shell.
pub async fn program(route: &Route, wish: &Wish) -> Result<(Program, WayEnd), CommandError> {
    let (channel, end) = channel(route, wish).await?;
    Ok((channel.start(wish).await?, end))
}

/// The channel on which `wish` can be started; nothing of the input here was read.
pub async fn channel(route: &Route, wish: &Wish) -> Result<(ProgramChannel, WayEnd), CommandError> {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519);
    let key = key.map_err(|error| CommandError::new("a key for this session cannot be made").cause(error))?;
    let way = open(route, key.public_key()).await?;
    let identity = match way.is_registered {
        true => ProgramKey::Session(Arc::new(key)),
        false => ProgramKey::File(identity_for(route)?),
    };
    let (host_key, name) = (way.host_key.clone(), way.name.clone());
    let (reader, writer, end) = way.split();
    let stream = tokio::io::join(reader, writer);
    Ok((ProgramChannel::open(stream, identity, &host_key, &name, wish).await?, end))
}

/// Keeps the carrier alive, and knows why it ended.
pub struct WayEnd(Carrier);

/// Opens the way to the agent of `route`'s target, and has it let the holder of `key` in.
pub async fn open(route: &Route, key: &PublicKey) -> Result<Way, CommandError> {
    let public = || {
        let line = key.to_openssh();
        line.map_err(|error| CommandError::new("the key for this session cannot be told").cause(error))
    };
    let name = route.target.to_string();
    match &route.target {
        TargetWord::Pid(_) => {
            if !cfg!(target_os = "linux") {
                return Err(CommandError::usage(format!(
                    "{name} is a process of this machine, which is no Linux"
                )));
            }
            let state = crate::dirs::state().join("agent");
            let started = stdio::ssh_server(&name, &state, &public()?, &cluster::who());
            child(started.map_err(tell_stdio)?, name).await
        }
        TargetWord::Container { engine, name: container } => {
            let started = container::ssh_server(*engine, container, &public()?, &cluster::who()).await;
            child(started.map_err(tell_container)?, name).await
        }
        TargetWord::Ssh { host, port, .. } => socket(route, host, *port, name).await,
        TargetWord::Workload { .. } | TargetWord::Selector(_) | TargetWord::Named(_) => {
            let (cluster, pod) = pod_of(route).await?;
            let access = Access {
                take_over: false,
                identity: route.identity.clone(),
                host_key: route.host_key.clone(),
                ..Access::default()
            };
            let Raw { stream, host_key, said, is_registered } =
                cluster::raw(&cluster, &pod, key, &access).await?;
            let (reader, writer) = tokio::io::split(stream);
            let (reader, writer) = (Box::new(reader), Box::new(writer));
            let (name, end) = (pod.to_string(), Carrier::PortForward(said));
            Ok(Way { reader, writer, host_key, name, pod: Some(pod), is_registered, end })
        }
    }
}

/// An agent that is our own child prints its host key first.
async fn child(transport: Transport, name: String) -> Result<Way, CommandError> {
    let Transport { mut reader, writer, link, .. } = transport;
    match first_line(&mut reader).await.as_deref().and_then(PinnedKey::of_line) {
        Some(host_key) => {
            let end = Carrier::Child(link);
            Ok(Way { reader, writer, host_key, name, pod: None, is_registered: true, end })
        }
        None => {
            drop((reader, writer));
            let said = link.close().await.unwrap_or_else(|| "it said nothing".to_owned());
            Err(CommandError::new(format!("the agent for {name} did not start"))
                .cause(said)
                .hint("devsync-agent and devsync must be of one release"))
        }
    }
}

/// Byte by byte: what follows belongs to SSH.
async fn first_line(reader: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    while line.len() < LONGEST_LINE {
        match reader.read_u8().await.ok()? {
            b'\n' => return String::from_utf8(line).ok(),
            byte => line.push(byte),
        }
    }
    None
}

/// An agent that serves somewhere: both keys were given beforehand.
async fn socket(route: &Route, host: &str, port: u16, name: String) -> Result<Way, CommandError> {
    let host_key = host_key_for(route)?;
    let stream = TcpStream::connect((host, port)).await.map_err(|error| {
        CommandError::new(format!("cannot connect to {host} port {port}"))
            .cause(error)
            .hint("does `devsync-agent serve` run there, and is the port forwarded?")
    })?;
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (reader, writer) = (Box::new(reader), Box::new(writer));
    Ok(Way { reader, writer, host_key, name, pod: None, is_registered: false, end: Carrier::Socket })
}
