//! The webhook in this process, over real TLS, without a cluster: what is asked badly is answered well.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use devsync_injector::server::{Config, Pair, Timing, run};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const NAME: &str = "devsync-injector.devsync-system.svc";

/// A webhook with files of its own; ends with `stop`.
struct Webhook {
    address: SocketAddr,
    dir: tempfile::TempDir,
    authority: String,
    stop: CancellationToken,
    served: JoinHandle<Result<(), devsync_injector::server::ServerError>>,
}

impl Webhook {
    async fn start(drain: Duration) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = certificate(dir.path())?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let timing = Timing { lifetime: Duration::from_secs(3600), overlap: Duration::ZERO };
        let config =
            Config { cluster: None, tls_dir: Some(dir.path().to_owned()), config_file: None, timing, drain };
        let stop = CancellationToken::new();
        let served = tokio::spawn(run(config, listener, stop.clone()));
        Ok(Self { address, dir, authority, stop, served })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME)?, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One request on a connection of its own.
    async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Result<(u16, String)> {
        let mut connection = self.connect().await?;
        ask(&mut connection, method, path, body.into()).await
    }

    async fn end(self) -> Result<()> {
        self.stop.cancel();
        self.served.await??;
        Ok(())
    }
}

async fn ask(
    connection: &mut SendRequest<Full<Bytes>>,
    method: &str,
    path: &str,
    body: Bytes,
) -> Result<(u16, String)> {
    let request = hyper::Request::builder().method(method).uri(path).header("host", NAME);
    let response = connection.send_request(request.body(Full::new(body))?).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec())?))
}

fn certificate(dir: &Path) -> Result<String> {
    let pair = Pair::make(&[NAME.to_owned()], SystemTime::now(), Duration::from_secs(3600))?;
    std::fs::write(dir.join("tls.key"), pair.key)?;
    std::fs::write(dir.join("tls.crt"), pair.certificate)?;
    Ok(pair.authority)
}

fn review() -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop",
        "operation": "CREATE", "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "demo-"},
        "spec": {"containers": [{"name": "app", "image": "shop"}]}}}})
}

#[tokio::test]
async fn a_pod_is_injected_and_the_figures_say_so() -> Result<()> {
    let webhook = Webhook::start(Duration::ZERO).await?;
    let (status, body) = webhook.ask("POST", "/mutate?timeout=5s", review().to_string()).await?;
    let answer: Value = serde_json::from_str(&body)?;
    ensure!(status == 200 && answer["response"]["patch"].is_string(), "{status} {answer}");
    ensure!(webhook.ask("GET", "/healthz", "").await?.0 == 200);
    ensure!(webhook.ask("GET", "/readyz", "").await?.0 == 200);
    let (_, figures) = webhook.ask("GET", "/metrics", "").await?;
    ensure!(figures.contains("devsync_injector_requests_total{outcome=\"Injected\"} 1"), "{figures}");
    ensure!(webhook.ask("GET", "/mutate", "").await?.0 == 405);
    webhook.end().await
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_with_its_reason_and_the_next_one_is_answered() -> Result<()> {
    let webhook = Webhook::start(Duration::ZERO).await?;
    let with = |change: fn(&mut Value)| {
        let mut review = review();
        change(&mut review);
        review.to_string()
    };
    let bad = [
        (with(|r| r["request"] = Value::Null), 400, "no request"),
        (with(|r| r["apiVersion"] = json!("admission.k8s.io/v1beta1")), 400, "v1beta1"),
        (with(|r| r["kind"] = json!("Pod")), 400, "Pod"),
        ("{\n \"kind\": nonsense".to_owned(), 400, "line 2 column"),
        (String::new(), 400, "no JSON"),
        ("x".repeat(10 << 20), 413, "larger than"),
    ];
    for (body, wanted, says) in bad {
        // A large body is refused by its length, while it is still on its way: the connection may be gone then.
        match webhook.ask("POST", "/mutate", body.clone()).await {
            Ok((status, said)) => ensure!(status == wanted && said.contains(says), "{status} {said}"),
            Err(error) => ensure!(wanted == 413, "{error:#}"),
        }
        ensure!(webhook.ask("POST", "/mutate", review().to_string()).await?.0 == 200);
    }
    webhook.end().await
}

#[tokio::test]
async fn a_changed_certificate_is_served_to_the_next_connection_and_half_of_one_is_not() -> Result<()> {
    let mut webhook = Webhook::start(Duration::ZERO).await?;
    let mut kept = webhook.connect().await?;
    // A key without its certificate: the last pair stays.
    let other = tempfile::tempdir()?;
    let authority = certificate(other.path())?;
    std::fs::copy(other.path().join("tls.key"), webhook.dir.path().join("tls.key"))?;
    webhook.connect().await.context("the last good pair")?;
    std::fs::copy(other.path().join("tls.crt"), webhook.dir.path().join("tls.crt"))?;
    webhook.authority = authority;
    webhook.connect().await.context("the next pair")?;
    ensure!(ask(&mut kept, "POST", "/mutate", review().to_string().into()).await?.0 == 200);
    webhook.end().await
}

#[tokio::test]
async fn the_end_is_said_first_and_what_is_under_way_is_answered() -> Result<()> {
    let webhook = Webhook::start(Duration::from_millis(500)).await?;
    let mut kept = webhook.connect().await?;
    ensure!(ask(&mut kept, "GET", "/readyz", Bytes::new()).await?.0 == 200);
    webhook.stop.cancel();
    let (status, said) = ask(&mut kept, "GET", "/readyz", Bytes::new()).await?;
    ensure!(status == 503 && said.contains("ending"), "{status} {said}");
    // A new connection is still taken, and answered.
    ensure!(webhook.ask("POST", "/mutate", review().to_string()).await?.0 == 200);
    let address = webhook.address;
    webhook.end().await?;
    ensure!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    Ok(())
}

#[tokio::test]
async fn who_speaks_no_tls_is_sent_away() -> Result<()> {
    let webhook = Webhook::start(Duration::ZERO).await?;
    let mut stream = TcpStream::connect(webhook.address).await?;
    stream.write_all(b"POST /mutate HTTP/1.1\r\n\r\n").await?;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    ensure!(!String::from_utf8_lossy(&said).contains("HTTP/1.1 200"));
    ensure!(webhook.ask("GET", "/healthz", "").await?.0 == 200);
    webhook.end().await
}
