//! To the agent in a pod: it is told this session's key through pods/exec and answers with its host key, so that RBAC
//! decides who may, and nothing is trusted on first use. Then SSH over a port-forward.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use devsync_protocol::contract::{AGENT_PORT, AGENT_PROGRAM, Authorized, STATE_DIR};
use devsync_protocol::path::display;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, LogParams};
use russh::keys::PublicKey;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::forward::{Forward, PodLink, PortStream, Said, forward};
use super::target::PodTarget;
use super::{Cluster, explain};
use crate::error::{CommandError, Kind};
use crate::report::plain_line;
use crate::transport::Transport;
use crate::transport::ssh::reverse::Dial;
use crate::transport::ssh::{self, PinnedKey, Reverse, Seat, SshError};

/// The answer of `authorize` is some hundred bytes.
const LONGEST_ANSWER: u64 = 16 * 1024;
/// How long `authorize` may take, with the start of its process in the pod.
const AUTHORIZE_WITHIN: Duration = Duration::from_secs(20);
/// The agent's first lines have its host key.
const LOG_HEAD: i64 = 16 * 1024;
/// Longest name of a person here, in characters.
const LONGEST_WHO: usize = 64;
/// zstd level: a pod's link (50 MiB/s at best) is slower than zstd.
const LEVEL: i32 = 1;
/// The SSH user; the key decides.
const USER: &str = "devsync";

/// How one gets in.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// End another client's session with this container first.
    pub take_over: bool,
    /// A key that the agent has from a file: used where pods/exec is not allowed.
    pub identity: Option<PathBuf>,
    /// The agent's host key for that case; without it the agent's log is asked.
    pub host_key: Option<String>,
    /// Who this is to the agent, also after a reconnect.
    pub seat: Seat,
    /// Ports of the pod that lead here.
    pub reverse: Reverse,
}

/// Opens a stream to the agent that serves `target`.
pub async fn open(cluster: &Cluster, target: &PodTarget, access: &Access) -> Result<Transport, CommandError> {
    let Some(agent) = &target.agent else { return Err(no_agent(cluster, target)) };
    let key = access.seat.key()?;
    let answer = match authorize(cluster, target, agent, key.public_key(), access).await? {
        Some(answer) => answer,
        None => return with_identity(cluster, target, agent, access).await,
    };
    let pinned = pin(&answer.host_key, target)?;
    let port = answer.listen.port();
    let Forward { stream, said } = forward(cluster, &target.namespace, &target.pod, port).await?;
    let name = target.to_string();
    let reverse = (dial(cluster, target, port), access.reverse.clone());
    let connected =
        ssh::connect_over(stream, USER, key, pinned, (&name, &access.seat.name()?), reverse).await;
    finish(connected, said, name)
}

/// Opens further streams to the agent.
fn dial(cluster: &Cluster, target: &PodTarget, port: u16) -> Dial {
    let (cluster, namespace, pod) = (cluster.clone(), target.namespace.clone(), target.pod.clone());
    Box::new(move || {
        let (cluster, namespace, pod) = (cluster.clone(), namespace.clone(), pod.clone());
        Box::pin(async move {
            let opened = forward(&cluster.fresh().await, &namespace, &pod, port).await;
            opened.map(|opened| Box::new(opened.stream) as _).map_err(|error| io::Error::other(error.line()))
        })
    })
}

/// A stream to the agent's SSH server on which nothing was said yet, and the key that the server must prove.
pub struct Raw {
    pub stream: PortStream,
    pub host_key: PinnedKey,
    pub said: Said,
    /// The key was registered; else it may be one that the agent was given.
    pub is_registered: bool,
}

/// As [`open`], for whoever speaks SSH itself and holds the private half of `key`.
pub async fn raw(
    cluster: &Cluster,
    target: &PodTarget,
    key: &PublicKey,
    access: &Access,
) -> Result<Raw, CommandError> {
    let Some(agent) = &target.agent else { return Err(no_agent(cluster, target)) };
    let answer = authorize(cluster, target, agent, key, access).await?;
    let is_registered = answer.is_some();
    let (port, host_key) = match answer {
        Some(answer) => (answer.listen.port(), pin(&answer.host_key, target)?),
        None => known(cluster, target, agent, access).await?,
    };
    let Forward { stream, said } = forward(cluster, &target.namespace, &target.pod, port).await?;
    Ok(Raw { stream, host_key, said, is_registered })
}

fn finish(
    connected: Result<Transport, SshError>,
    said: Said,
    pod: String,
) -> Result<Transport, CommandError> {
    match connected {
        Ok(Transport { reader, writer, link, .. }) => {
            let link = Box::new(PodLink { ssh: link, said, pod });
            Ok(Transport { reader, writer, level: Some(LEVEL), link })
        }
        Err(error) => {
            let hint = error.hint();
            let said = said.error();
            let error = CommandError::of(error).kind(Kind::Cluster).hint_opt(hint);
            Err(match said {
                Some(said) => error.cause(format!("the port-forward to {pod} ended: {said}")),
                None => error,
            })
        }
    }
}

/// Has an agent end in order: an ephemeral one, which nothing starts anew.
pub(super) async fn stop(cluster: &Cluster, pod: &str, agent: &str) -> Result<(), CommandError> {
    let doing = format!("the agent in pod/{pod} cannot be told to end");
    let words = [AGENT_PROGRAM, "stop"];
    let ran = match timeout(AUTHORIZE_WITHIN, run(cluster, &cluster.namespace, pod, agent, &words)).await {
        Ok(ran) => ran.map_err(|error| cluster.explain(error, &doing))?,
        Err(_) => return Err(CommandError::new(doing).cause("it did not answer")),
    };
    if ran.succeeded {
        return Ok(());
    }
    let said = ran.stderr.trim().trim_start_matches("devsync-agent: ");
    let said = said.lines().next().filter(|said| !said.is_empty()).unwrap_or(&ran.message);
    Err(CommandError::new(doing).cause(plain_line(said)))
}

fn no_agent(cluster: &Cluster, target: &PodTarget) -> CommandError {
    CommandError::new(format!("{target} has no devsync agent"))
        .kind(Kind::Cluster)
        .hint(format!("devsync attach {target} {} adds one", cluster.flags))
}

fn pin(host_key: &str, target: &PodTarget) -> Result<PinnedKey, CommandError> {
    PinnedKey::of_line(host_key).ok_or_else(|| {
        CommandError::new(format!("the agent in {target} answered with no host key"))
            .kind(Kind::Version)
            .hint("its image and this devsync must be of one release")
    })
}

/// Registers the key; `None` where this user may not use pods/exec and has a key of another kind.
async fn authorize(
    cluster: &Cluster,
    target: &PodTarget,
    agent: &str,
    key: &PublicKey,
    access: &Access,
) -> Result<Option<Authorized>, CommandError> {
    let doing = format!("the agent in {target} cannot be asked to let this session in");
    let public = key.to_openssh().map_err(|error| CommandError::new(doing.clone()).cause(error))?;
    let container = format!("container/{}", target.container_id);
    let who = who();
    let mut words = vec![AGENT_PROGRAM, "authorize", "--key", &public, "--target", &container, "--who", &who];
    if access.take_over {
        words.push("--take-over");
    }
    let ran = timeout(AUTHORIZE_WITHIN, run(cluster, &target.namespace, &target.pod, agent, &words)).await;
    let ran = match ran {
        Ok(Ok(ran)) => ran,
        Ok(Err(error)) if explain::is_forbidden(&error) && access.identity.is_some() => return Ok(None),
        Ok(Err(error)) => {
            let forbidden = explain::is_forbidden(&error);
            let error = cluster.explain(error, &doing);
            let rule = error.get_hint().unwrap_or_default().to_owned();
            return Err(match forbidden {
                true => error
                    .hint(format!("{rule}\nor log in with a key that the agent was given: --identity FILE")),
                false => error,
            });
        }
        Err(_) => {
            return Err(CommandError::new(doing)
                .kind(Kind::Cluster)
                .cause(format!("it did not answer within {} s", AUTHORIZE_WITHIN.as_secs()))
                .hint(format!("kubectl logs {} {} -c {agent}", target.pod, cluster.flags)));
        }
    };
    if !ran.succeeded {
        return Err(refused(cluster, target, agent, &ran));
    }
    match ran.stdout.parse() {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => Err(CommandError::new(doing)
            .kind(Kind::Version)
            .cause(error)
            .hint("the agent's image and this devsync must be of one release")),
    }
}

/// What a program in a container left.
struct Ran {
    succeeded: bool,
    stdout: String,
    stderr: String,
    /// What the API server says of its end.
    message: String,
}

async fn run(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    agent: &str,
    words: &[&str],
) -> Result<Ran, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let params = AttachParams::default().stdin(false).stdout(true).stderr(true).container(agent);
    let mut process = pods.exec(pod, words.iter().copied(), &params).await?;
    let (out, err, status) = (process.stdout(), process.stderr(), process.take_status());
    let status = async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    let (stdout, stderr, status) = tokio::join!(text(out), text(err), status);
    let Status { status, message, .. } = status.unwrap_or_default();
    let succeeded = status.as_deref() == Some("Success");
    Ok(Ran { succeeded, stdout, stderr, message: message.unwrap_or_default() })
}

/// What is written there, up to [`LONGEST_ANSWER`] bytes; the rest is read and dropped, so that the end comes.
async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut bytes = Vec::new();
    let _ = (&mut stream).take(LONGEST_ANSWER).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The runtime's words for an image that lacks the program; it has the same end for a container that just dies.
fn is_missing(message: &str) -> bool {
    message.contains(AGENT_PROGRAM) && message.contains("no such file or directory")
}

fn refused(cluster: &Cluster, target: &PodTarget, agent: &str, ran: &Ran) -> CommandError {
    let said = ran.stderr.trim().trim_start_matches("devsync-agent: ");
    let what = format!("the agent in {target} does not let this session in");
    // clap's words of an agent that does not know the command, and the runtime's of an image without the program.
    if said.contains("unrecognized subcommand") || is_missing(&ran.message) {
        return CommandError::new(format!(
            "the container {agent} of {target} has an agent of another release"
        ))
        .kind(Kind::Version)
        .cause(plain_line(if said.is_empty() { &ran.message } else { said }))
        .hint(format!(
            "devsync detach {target} {}, then attach again: this release's agent is added",
            cluster.flags
        ));
    }
    let cause = if said.is_empty() { &ran.message } else { said };
    let cause = if cause.is_empty() { "its container ended meanwhile" } else { cause };
    CommandError::new(what)
        .kind(Kind::Cluster)
        .cause(plain_line(cause))
        .hint(format!("kubectl logs {} {} -c {agent}", target.pod, cluster.flags))
}

/// Without pods/exec: a key that the agent has from a file, and its host key from its log.
async fn with_identity(
    cluster: &Cluster,
    target: &PodTarget,
    agent: &str,
    access: &Access,
) -> Result<Transport, CommandError> {
    let identity = access.identity.clone().unwrap_or_default();
    let (port, host_key) = known(cluster, target, agent, access).await?;
    let Forward { stream, said } = forward(cluster, &target.namespace, &target.pod, port).await?;
    let name = target.to_string();
    let reverse = (dial(cluster, target, port), access.reverse.clone());
    let connected =
        ssh::connect_over_with(stream, USER, &identity, host_key, (&name, &access.seat.name()?), reverse)
            .await;
    finish(connected, said, name)
}

/// Where the agent listens, and its host key: as it was given, else from the log.
async fn known(
    cluster: &Cluster,
    target: &PodTarget,
    agent: &str,
    access: &Access,
) -> Result<(u16, PinnedKey), CommandError> {
    match &access.host_key {
        Some(given) => {
            let pinned = PinnedKey::parse(given).map_err(|e| CommandError::of(e).kind(Kind::Usage))?;
            Ok((AGENT_PORT, pinned))
        }
        None => from_log(cluster, target, agent).await,
    }
}

/// The known_hosts line that the agent prints when it starts: `[127.0.0.1]:2222 ssh-ed25519 AAAA…`. Only the agent and
/// the kubelet write that log.
async fn from_log(
    cluster: &Cluster,
    target: &PodTarget,
    agent: &str,
) -> Result<(u16, PinnedKey), CommandError> {
    let doing = format!("the host key of the agent in {target} cannot be read from its log");
    let params =
        LogParams { container: Some(agent.to_owned()), limit_bytes: Some(LOG_HEAD), ..LogParams::default() };
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &target.namespace);
    let log = cluster.ask(&doing, pods.logs(&target.pod, &params)).await?;
    log.lines().find_map(known_host).ok_or_else(|| {
        CommandError::new(doing)
            .kind(Kind::Cluster)
            .cause("the log has no host key any more")
            .hint(format!("give it: --host-key FILE|KEY (it lies in {STATE_DIR} of the container {agent})"))
    })
}

fn known_host(line: &str) -> Option<(u16, PinnedKey)> {
    let (host, rest) = line.trim().split_once(' ')?;
    let port = match host.strip_prefix('[').and_then(|h| h.split_once("]:")) {
        Some((_, port)) => port.parse().ok()?,
        None => 22,
    };
    rest.starts_with("ssh-ed25519 ").then(|| PinnedKey::of_line(rest))?.map(|key| (port, key))
}

/// Who this is, told to whoever finds the app taken: `ann@laptop`.
pub(crate) fn who() -> String {
    let user = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|u| !u.is_empty()).unwrap_or_else(|| "somebody".to_owned());
    let who = match host() {
        Some(host) => format!("{user}@{host}"),
        None => user,
    };
    display(who.as_bytes()).chars().filter(|c| !c.is_whitespace()).take(LONGEST_WHO).collect()
}

#[cfg(unix)]
fn host() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

#[cfg(not(unix))]
fn host() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}
