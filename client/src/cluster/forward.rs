//! A byte stream to a port in a pod, through the API server's port-forward (a WebSocket).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Cluster;
use crate::error::CommandError;
use crate::transport::Link;

/// What is left of the stream may take so long to go out.
const DRAIN: Duration = Duration::from_millis(300);

/// One forwarded connection.
pub struct Forward {
    pub stream: DuplexStream,
    pub guard: Guard,
}

/// Keeps the connection; without it the connection ends.
pub struct Guard {
    forwarder: Portforwarder,
    said: Arc<Mutex<Option<String>>>,
    listener: JoinHandle<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.forwarder.abort();
        self.listener.abort();
    }
}

impl Guard {
    /// What the kubelet said went wrong: "connection refused", "lost connection to pod".
    pub fn error(&self) -> Option<String> {
        self.said.lock().ok().and_then(|said| said.clone())
    }

    /// As [`Guard::error`], for a stream that has ended: what is still on its way is waited for.
    pub async fn settled_error(mut self) -> Option<String> {
        let _ = timeout(DRAIN, &mut self.listener).await;
        self.error()
    }
}

/// Opens a connection to `port` in the pod.
pub async fn forward(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<Forward, CommandError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let doing = format!("port {port} of pod/{pod} cannot be forwarded");
    let ports = [port];
    let mut forwarder = cluster.ask(&doing, pods.portforward(pod, &ports)).await?;
    let stream = forwarder.take_stream(port).ok_or_else(|| CommandError::new(doing))?;
    let said = Arc::new(Mutex::new(None));
    let listener = tokio::spawn(listen(forwarder.take_error(port), said.clone()));
    Ok(Forward { stream, guard: Guard { forwarder, said, listener } })
}

async fn listen(error: Option<impl Future<Output = Option<String>>>, said: Arc<Mutex<Option<String>>>) {
    let Some(error) = error else { return };
    if let (Some(text), Ok(mut said)) = (error.await, said.lock()) {
        *said = Some(text.chars().take(500).collect::<String>().trim().to_owned());
    }
}

/// The link of a session through a pod: the SSH connection, and the port-forward below it.
pub(super) struct PodLink {
    pub(super) ssh: Box<dyn Link>,
    pub(super) guard: Guard,
    /// `pod/NAME`, for the words about its end.
    pub(super) pod: String,
}

impl Link for PodLink {
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
        Box::pin(async move {
            let Self { ssh, guard, pod } = *self;
            if let Some(said) = ssh.close().await {
                return Some(said);
            }
            guard.settled_error().await.map(|error| format!("the port-forward to {pod} ended: {error}"))
        })
    }
}
