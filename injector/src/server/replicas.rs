//! Which certificate each replica serves: asked of each by a TLS handshake, which is the only proof.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use devsync_protocol::contract::INJECTOR_PORT;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::certificate::{CertificateError, certificates};
use super::names::Names;

const ANSWER_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, Error)]
pub(super) enum ReplicaError {
    #[error("the replicas cannot be listed")]
    List(#[source] kube::Error),
    #[error("{pod} has no address yet")]
    NoAddress { pod: String },
    #[error("{pod} at {address} cannot be asked")]
    Connect { pod: String, address: IpAddr, source: std::io::Error },
    #[error("{pod} at {address} did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Late { pod: String, address: IpAddr },
    #[error("the authority cannot be used")]
    Authority(#[from] CertificateError),
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Succeeds if every replica that may be called answers with a certificate of these authorities.
pub(super) async fn all_serve(client: &Client, names: &Names, authorities: &str) -> Result<(), ReplicaError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
    let params = ListParams::default().labels(&format!("app.kubernetes.io/name={}", names.app));
    let pods = pods.list(&params).await.map_err(ReplicaError::List)?;
    let connector = TlsConnector::from(Arc::new(config(authorities)?));
    for pod in pods.items.iter().filter(|pod| runs(pod)) {
        asked(pod, &connector, names).await?;
    }
    Ok(())
}

fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
}

async fn asked(pod: &Pod, connector: &TlsConnector, names: &Names) -> Result<(), ReplicaError> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
    let Some(address) = address else { return Err(ReplicaError::NoAddress { pod: name }) };
    let server = names.dns().into_iter().next().unwrap_or_default();
    let handshake = async {
        let server = ServerName::try_from(server).map_err(std::io::Error::other)?;
        let stream = TcpStream::connect((address, INJECTOR_PORT)).await?;
        connector.connect(server, stream).await
    };
    match timeout(ANSWER_WITHIN, handshake).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(source)) => Err(ReplicaError::Connect { pod: name, address, source }),
        Err(_) => Err(ReplicaError::Late { pod: name, address }),
    }
}

fn config(authorities: &str) -> Result<ClientConfig, ReplicaError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("the authority", authorities.as_bytes())? {
        roots.add(authority).map_err(ReplicaError::Setup)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ReplicaError::Setup)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
