//! Which certificate a TLS connection is answered with: the one of the moment, kept in memory, or the files of a
//! directory that somebody else (cert-manager) keeps.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::certificate::{CertificateError, certified};

/// The files as a Secret of type kubernetes.io/tls names them.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{path:?} cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the certificate of {dir:?} cannot be served")]
    Unusable { dir: PathBuf, source: CertificateError },
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// What is served; `None` until there is a certificate: connections end in the handshake then.
#[derive(Debug, Default)]
pub(super) struct Served {
    now: RwLock<Option<Arc<CertifiedKey>>>,
    directory: Option<Directory>,
}

/// Files that are looked at when a connection begins: connections are few, and a change needs no watcher then.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    read: RwLock<Stamp>,
}

/// What tells one version of the two files from another, also where a link to them is swapped.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Served {
    /// Serves the files of `path`, now and after each change.
    pub(super) fn directory(path: PathBuf) -> Result<Self, TlsError> {
        let directory = Directory { path, read: RwLock::default() };
        let stamp = directory.stamp();
        let first = directory.read()?;
        *directory.read.write().unwrap_or_else(PoisonError::into_inner) = stamp;
        Ok(Self { now: RwLock::new(Some(Arc::new(first))), directory: Some(directory) })
    }

    /// Serves `certified` to connections that begin from now on.
    pub(super) fn set(&self, certified: CertifiedKey) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
    }

    fn refresh(&self) {
        let Some(directory) = &self.directory else { return };
        let stamp = directory.stamp();
        if *directory.read.read().unwrap_or_else(PoisonError::into_inner) == stamp {
            return;
        }
        match directory.read() {
            Ok(certified) => {
                tracing::info!(directory = ?directory.path, "serving another certificate");
                self.set(certified);
                *directory.read.write().unwrap_or_else(PoisonError::into_inner) = stamp;
            }
            // Half written, perhaps: the next connection looks again.
            Err(error) => {
                tracing::warn!(%error, source = ?std::error::Error::source(&error).map(ToString::to_string),
                                         "still serving the last certificate")
            }
        }
    }
}

impl Directory {
    fn stamp(&self) -> Stamp {
        [CERTIFICATE, KEY].map(|name| {
            let metadata = fs::metadata(self.path.join(name)).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let file = |name: &str| {
            let path = self.path.join(name);
            fs::read(&path).map_err(|source| TlsError::Read { path, source })
        };
        certified(&file(CERTIFICATE)?, &file(KEY)?)
            .map_err(|source| TlsError::Unusable { dir: self.path.clone(), source })
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.refresh();
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no client certificates: API servers have none that a webhook could check.
pub(super) fn config(served: Arc<Served>) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(served);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
