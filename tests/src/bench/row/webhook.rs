//! The webhook under load, over HTTPS with reviews as API servers send them: 200 a second for half a minute, a burst of a
//! thousand, and another certificate in the middle. Each call must be answered with a patch.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::idle::resident;
use crate::bench::Bench;
use crate::bench::figure::Figure;

const RATE: u32 = 200;
const SECONDS: u32 = 30;
const BURST: usize = 1000;
/// API servers keep few connections open and make others for the rest: as many requests of one connection.
const PER_CONNECTION: usize = 50;
const NAME: &str = "devsync-injector.devsync-system.svc";

/// Ends with its value.
struct Injector {
    child: Child,
    address: SocketAddr,
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn webhook(bench: &Bench) -> Result<Vec<Figure>> {
    let dir = bench.fresh("webhook")?;
    let authorities = [certificate(&dir, "first")?, certificate(&dir, "second")?];
    serve(&dir, "first")?;
    let injector = start(bench, &dir)?;
    let connector = connector(&authorities)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (steady, burst) = runtime.block_on(async {
        ready(injector.address, &connector).await?;
        let steady = steady(&injector, &connector, || serve(&dir, "second")).await?;
        let burst = burst(&injector, &connector).await?;
        Ok::<_, anyhow::Error>((steady, burst))
    })?;
    let resident = resident(injector.child.id())?;
    let mut first = Figure::new("webhook", "steady", &steady, &[]);
    first.note =
        format!("{} reviews, {RATE} a second, another certificate in the middle; none failed", steady.len());
    let mut second = Figure::new("webhook", "burst", &burst, &[]);
    second.note = format!("{BURST} reviews at once; all injected; resident {resident} kB");
    Ok(vec![first, second])
}

/// A certificate that is its own authority, by openssl; prints where it is.
fn certificate(dir: &Path, name: &str) -> Result<PathBuf> {
    let into = dir.join(name);
    fs::create_dir_all(&into)?;
    let (key, certificate) = (into.join("tls.key"), into.join("tls.crt"));
    let status = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=bench", "-addext", &format!("subjectAltName=DNS:{NAME}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .context("start openssl")?;
    ensure!(status.success(), "openssl: {status}");
    Ok(certificate)
}

/// Serves another certificate: as the kubelet swaps the files of a Secret, in one step.
fn serve(dir: &Path, name: &str) -> Result<()> {
    let (link, next) = (dir.join("now"), dir.join("next"));
    std::os::unix::fs::symlink(name, &next)?;
    fs::rename(next, link)?;
    Ok(())
}

fn start(bench: &Bench, dir: &Path) -> Result<Injector> {
    let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let child = Command::new(bench.programs.join("devsync-injector"))
        .args(["--offline", "--listen", &address.to_string(), "--tls-dir"])
        .arg(dir.join("now"))
        .env("DEVSYNC_LOG", "warn")
        .stdout(Stdio::null())
        .spawn()
        .context("start devsync-injector")?;
    Ok(Injector { child, address })
}

fn connector(authorities: &[PathBuf]) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for file in authorities {
        roots.add(CertificateDer::from_pem_file(file)?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

type Connection = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr, connector: &TlsConnector) -> Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = connector.connect(ServerName::try_from(NAME)?, stream).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn ready(address: SocketAddr, connector: &TlsConnector) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match connect(address, connector).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// One call: a review in, a patch out.
async fn call(connection: &mut Connection, number: usize) -> Result<Duration> {
    let body = review(number).to_string();
    let request = hyper::Request::post("/mutate")
        .header("host", NAME)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    connection.ready().await?;
    let begun = Instant::now();
    let response = connection.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let took = begun.elapsed();
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body)?;
    let response = &answer["response"];
    ensure!(response["uid"] == json!(format!("uid-{number}")), "another's answer: {answer}");
    ensure!(response["patch"].is_string(), "not injected: {answer}");
    Ok(took)
}

/// At a steady rate; a call whose time has come does not wait for another one. `between` happens in the middle.
async fn steady(
    injector: &Injector,
    connector: &TlsConnector,
    between: impl Fn() -> Result<()>,
) -> Result<Vec<Duration>> {
    let idle: Arc<std::sync::Mutex<Vec<(Connection, usize)>>> = Arc::default();
    let (mut calls, mut times) = (JoinSet::new(), Vec::new());
    let mut clock = tokio::time::interval(Duration::from_secs(1) / RATE);
    for number in 0..(RATE * SECONDS) as usize {
        clock.tick().await;
        if number == (RATE * SECONDS) as usize / 2 {
            between()?;
        }
        let (idle, connector, address) = (idle.clone(), connector.clone(), injector.address);
        calls.spawn(async move {
            let kept = idle.lock().ok().and_then(|mut idle| idle.pop());
            let (mut connection, used) = match kept {
                Some(kept) => kept,
                None => (connect(address, &connector).await?, 0),
            };
            let took = call(&mut connection, number).await?;
            if let (true, Ok(mut idle)) = (used + 1 < PER_CONNECTION, idle.lock()) {
                idle.push((connection, used + 1));
            }
            Ok::<_, anyhow::Error>(took)
        });
        while let Some(done) = calls.try_join_next() {
            times.push(done??);
        }
    }
    while let Some(done) = calls.join_next().await {
        times.push(done??);
    }
    Ok(times)
}

/// All at once, over as many connections as an API server has requests under way.
async fn burst(injector: &Injector, connector: &TlsConnector) -> Result<Vec<Duration>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..RATE {
        let (next, connector, address) = (next.clone(), connector.clone(), injector.address);
        workers.spawn(async move {
            let mut connection = connect(address, &connector).await?;
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= BURST {
                    return Ok::<_, anyhow::Error>(times);
                }
                times.push(call(&mut connection, number).await?);
            }
        });
    }
    let mut times = Vec::new();
    while let Some(done) = workers.join_next().await {
        times.extend(done??);
    }
    ensure!(times.len() == BURST);
    Ok(times)
}

/// A review of a pod as a Deployment's controller makes it.
fn review(number: usize) -> Value {
    let variables: Vec<Value> = (0..20)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "a value of some length"}))
        .collect();
    let mounts = json!([{"name": "token", "readOnly": true,
                         "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    let container = |name: &str| {
        json!({"name": name, "image": format!("registry.example/shop/{name}:1.2.3"), "env": variables,
               "ports": [{"containerPort": 8080, "protocol": "TCP"}],
               "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
               "livenessProbe": {"httpGet": {"path": "/", "port": 8080}}, "volumeMounts": mounts})
    };
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "shop-7d9c5b8f6d-", "labels": {"app": "shop", "pod-template-hash": "7d9c5b8f6d"},
                     "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7d9c5b8f6d",
                                          "uid": "0", "controller": true}]},
        "spec": {"containers": [container("app"), container("cache")], "serviceAccountName": "default",
                 "volumes": [{"name": "token", "secret": {"secretName": "default-token"}}]},
    });
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": format!("uid-{number}"), "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "shop", "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": object, "oldObject": null, "dryRun": false}})
}
