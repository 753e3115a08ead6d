//! Local ports that lead into a pod: each connection is a port-forward stream of its own, so that one that fails
//! takes no other along. A replaced pod is found again by the next connection.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::io::InspectReader;

use super::forward::{Forward, forward};
use super::target::{PodTarget, WorkloadRef};
use super::{Cluster, find};
use crate::cli::WorkloadKind;
use crate::error::{CommandError, Kind};

/// Connections at once, over all ports.
const MOST: usize = 256;
/// A client is not kept waiting for ever while no pod is there.
const FIND_WITHIN: Duration = Duration::from_secs(60);
/// A client that has sent everything still gets answers until none came for so long; the protocol cannot say that half
/// is closed.
const HALF_OPEN: Duration = Duration::from_secs(60);

/// `[LOCAL:]REMOTE`; a local port of 0 is any free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    pub local: u16,
    pub remote: RemotePort,
}

/// A port's number, or its name in the pod's or the Service's spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemotePort {
    Number(u16),
    Name(String),
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |word: &str| word.parse::<u16>().ok().filter(|port| *port > 0);
        let name = |word: &str| {
            let usual = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (word.bytes().all(usual) && word.bytes().any(|b| b.is_ascii_lowercase()) && word.len() <= 15)
                .then(|| RemotePort::Name(word.to_owned()))
        };
        let remote = |word: &str| port(word).map(RemotePort::Number).or_else(|| name(word));
        let bad = || format!("{text:?} is no port: 8080:80, 8080, :80 and 8080:http are");
        let (local, far) = match text.split_once(':') {
            Some(("", far)) => (Some(0), far),
            Some((local, far)) => (Some(port(local).ok_or_else(bad)?), far),
            None => (None, text),
        };
        let remote = remote(far).ok_or_else(bad)?;
        let same = if let RemotePort::Number(number) = &remote { *number } else { 0 };
        Ok(Self { local: local.unwrap_or(same), remote })
    }
}

impl fmt::Display for RemotePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Ports that are being forwarded, until this is dropped.
pub struct Ports {
    /// Where each listens, and which port of the pod it leads to.
    pub open: Vec<(SocketAddr, u16)>,
    tasks: JoinSet<()>,
}

impl Ports {
    /// Serves until the task is dropped; listeners do not end by themselves.
    pub async fn serve(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Listens on 127.0.0.1 for each of `specs`. `say` is told what went wrong with a connection.
pub async fn listen(
    cluster: &Cluster,
    workload: &WorkloadRef,
    specs: &[PortSpec],
    say: fn(&str),
) -> Result<Ports, CommandError> {
    let found = find(cluster, workload, cluster.container.as_deref()).await?;
    let first = found.into_iter().next();
    let pod =
        first.ok_or_else(|| CommandError::new(format!("{workload} has no pods")).kind(Kind::Cluster))?;
    let mut listeners = Vec::new();
    for spec in specs {
        let remote = number(cluster, workload, &pod, &spec.remote).await?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spec.local));
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            Ok::<_, io::Error>((listener.local_addr()?, listener))
        };
        let (address, listener) = bound.await.map_err(|error| {
            CommandError::new(format!("port {} cannot be listened on here", spec.local)).cause(error).hint(
                format!(
                    "take another one: {}:{remote}, or any: :{remote}",
                    spec.local.saturating_add(10_000)
                ),
            )
        })?;
        listeners.push((listener, address, remote));
    }
    let now = std::sync::Mutex::new(pod);
    let (cluster, workload) = (cluster.clone(), workload.clone());
    let pods = Arc::new(Pods { cluster, workload, now, looking: Mutex::default() });
    let permits = Arc::new(Semaphore::new(MOST));
    let mut ports = Ports { open: Vec::new(), tasks: JoinSet::new() };
    for (listener, address, remote) in listeners {
        ports.open.push((address, remote));
        ports.tasks.spawn(accept(listener, remote, pods.clone(), permits.clone(), say));
    }
    Ok(ports)
}

/// The pod that connections go to now.
struct Pods {
    cluster: Cluster,
    workload: WorkloadRef,
    now: std::sync::Mutex<PodTarget>,
    looking: Mutex<()>,
}

impl Pods {
    fn known(&self) -> PodTarget {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a stream; a pod that is gone is replaced, once.
    async fn open(&self, port: u16) -> Result<Forward, CommandError> {
        let known = self.known();
        let cluster = self.cluster.fresh().await;
        match forward(&cluster, &known.namespace, &known.pod, port).await {
            Ok(stream) => return Ok(stream),
            Err(error) => tracing::debug!(pod = %known, "{error}: looking for another pod"),
        }
        // One looks at a time; who waited meanwhile takes what was found. Connections to a pod that lives never wait.
        let looking = self.looking.lock().await;
        let mut pod = self.known();
        if pod.uid == known.uid {
            let container = self.cluster.container.as_deref();
            let found = timeout(FIND_WITHIN, find(&cluster, &self.workload, container)).await;
            let gone = || CommandError::new(format!("{} has no pods", self.workload)).kind(Kind::Cluster);
            pod = found.map_err(|_| gone())??.into_iter().next().ok_or_else(gone)?;
            *self.now.lock().unwrap_or_else(PoisonError::into_inner) = pod.clone();
        }
        drop(looking);
        forward(&cluster, &pod.namespace, &pod.pod, port).await
    }
}

async fn accept(listener: TcpListener, port: u16, pods: Arc<Pods>, permits: Arc<Semaphore>, say: fn(&str)) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = accepted else {
            // Too many open files, or the client was quicker to go than we to take it.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pods = pods.clone();
        connections.spawn(async move {
            if let Err(error) = carry(client, port, &pods).await {
                let causes = error.causes();
                say(&format!("port {port}: {}", causes.last().map_or(error.what(), String::as_str)));
            }
            drop(permit);
        });
    }
}

/// One connection, from its begin to its end.
async fn carry(mut client: TcpStream, port: u16, pods: &Pods) -> Result<(), CommandError> {
    let _ = client.set_nodelay(true);
    let Forward { stream, said } = pods.open(port).await?;
    let (from_pod, mut to_pod) = tokio::io::split(stream);
    let moved = AtomicU64::new(0);
    let count = |bytes: &[u8]| {
        moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    };
    let mut from_pod = InspectReader::new(from_pod, count);
    let (mut from_client, mut to_client) = client.split();
    {
        let down = async {
            let done = copy(&mut from_pod, &mut to_client).await;
            let _ = to_client.shutdown().await;
            done
        };
        tokio::pin!(down);
        tokio::select! {
            _ = &mut down => {}
            up = copy(&mut from_client, &mut to_pod) => {
                // Closing the stream to the pod would close the way back, too.
                if up.is_ok() {
                    let mut before = None;
                    while before != Some(moved.load(Ordering::Relaxed)) {
                        before = Some(moved.load(Ordering::Relaxed));
                        if timeout(HALF_OPEN, &mut down).await.is_ok() {
                            break;
                        }
                    }
                }
            }
        }
    }
    match said.error() {
        Some(said) => Err(CommandError::new(said)),
        None => Ok(()),
    }
}

/// A port's number, by the Service's or the container's spec where it is a name or a Service's port.
async fn number(
    cluster: &Cluster,
    workload: &WorkloadRef,
    pod: &PodTarget,
    remote: &RemotePort,
) -> Result<u16, CommandError> {
    let mut wanted = remote.clone();
    if let WorkloadRef::Named { kind: WorkloadKind::Service, name } = workload {
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let service = cluster.ask(&format!("{workload} cannot be read"), services.get(name)).await?;
        wanted = service_port(&service, workload, remote)?;
    }
    match wanted {
        RemotePort::Number(number) => Ok(number),
        RemotePort::Name(name) => container_port(&pod.object, &name).ok_or_else(|| {
            CommandError::usage(format!("{pod} has no port called {name}")).hint("give its number: 8080:80")
        }),
    }
}

fn service_port(
    service: &Service,
    workload: &WorkloadRef,
    remote: &RemotePort,
) -> Result<RemotePort, CommandError> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let is = |port: &&k8s_openapi::api::core::v1::ServicePort| match remote {
        RemotePort::Number(number) => port.port == i32::from(*number),
        RemotePort::Name(name) => port.name.as_ref() == Some(name),
    };
    let Some(port) = ports.iter().find(is) else {
        let listed: Vec<String> = ports.iter().map(|port| port.port.to_string()).collect();
        return Err(CommandError::usage(format!("{workload} has no port {remote}"))
            .cause(format!("its ports: {}", listed.join(", "))));
    };
    Ok(match &port.target_port {
        Some(IntOrString::Int(number)) => RemotePort::Number(u16::try_from(*number).unwrap_or_default()),
        Some(IntOrString::String(name)) => RemotePort::Name(name.clone()),
        None => RemotePort::Number(u16::try_from(port.port).unwrap_or_default()),
    })
}

fn container_port(pod: &Pod, name: &str) -> Option<u16> {
    let mut ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|c| c.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(port.container_port).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_for_kubectl() {
        let spec = |text: &str| text.parse::<PortSpec>().map(|s| (s.local, s.remote));
        assert_eq!(spec("8080:80"), Ok((8080, RemotePort::Number(80))));
        assert_eq!(spec("8080"), Ok((8080, RemotePort::Number(8080))));
        assert_eq!(spec(":80"), Ok((0, RemotePort::Number(80))));
        assert_eq!(spec("8080:http"), Ok((8080, RemotePort::Name("http".to_owned()))));
        assert_eq!(spec("http"), Ok((0, RemotePort::Name("http".to_owned()))));
        for bad in ["", ":", "0", "70000", "x:80", "80:", "1:2:3", "80:UP"] {
            assert!(spec(bad).is_err(), "{bad}");
        }
    }
}
