//! The webhook's entry: options, the log, the client, signals.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use devsync_injector::server::{Config, Names, Timing, run};
use devsync_protocol::contract::{INJECTOR, INJECTOR_PORT};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The admission webhook that gives pods of development namespaces their agent.
#[derive(Debug, Parser)]
#[command(name = "devsync-injector", version, about, max_term_width = 110)]
struct Options {
    /// Where to listen, with TLS
    #[arg(long, env = "DEVSYNC_LISTEN", default_value_t = SocketAddr::from(([0, 0, 0, 0], INJECTOR_PORT)))]
    listen: SocketAddr,
    /// The namespace of this installation
    #[arg(long, env = "POD_NAMESPACE", default_value = devsync_protocol::contract::INJECTOR_NAMESPACE)]
    namespace: String,
    /// This replica's name in the Lease
    #[arg(long, env = "POD_NAME", default_value = "devsync-injector")]
    replica: String,
    /// The MutatingWebhookConfiguration whose caBundle is kept
    #[arg(long, env = "DEVSYNC_WEBHOOK", default_value = INJECTOR)]
    webhook: String,
    /// Serve tls.crt and tls.key of this directory (cert-manager), in place of certificates of its own
    #[arg(long, env = "DEVSYNC_TLS_DIR", value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// How many days a certificate of its own is good; the next one comes after two thirds
    #[arg(long, env = "DEVSYNC_CERTIFICATE_DAYS", default_value_t = 90,
          value_parser = clap::value_parser!(u64).range(1..=825))]
    certificate_days: u64,
    /// How many seconds API servers trust the next certificate before it is served
    #[arg(long, env = "DEVSYNC_CERTIFICATE_OVERLAP", default_value_t = 120, value_name = "SECONDS")]
    certificate_overlap: u64,
    /// How many seconds it goes on serving after SIGTERM
    #[arg(long, env = "DEVSYNC_DRAIN", default_value_t = 8, value_name = "SECONDS")]
    drain: u64,
    /// Ask no API server: for trials, with --tls-dir; no namespace has rules then
    #[arg(long, requires = "tls_dir")]
    offline: bool,
    /// The configuration's file, where no API server is asked
    #[arg(long, requires = "offline", value_name = "FILE")]
    config_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("DEVSYNC_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let asked = shutdown.clone();
        let signals = tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            asked.cancel();
        });
        let cluster = if options.offline {
            None
        } else {
            let client = kube::Client::try_default().await.context("no cluster's API can be reached")?;
            Some((client, Names::of(&options.namespace, &options.replica, &options.webhook)))
        };
        let config = Config {
            cluster,
            tls_dir: options.tls_dir,
            config_file: options.config_file,
            timing: Timing {
                lifetime: Duration::from_secs(options.certificate_days * 86_400),
                overlap: Duration::from_secs(options.certificate_overlap),
            },
            drain: Duration::from_secs(options.drain),
        };
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("cannot listen on {}", options.listen))?;
        tracing::info!(listen = %options.listen, release = env!("CARGO_PKG_VERSION"), "devsync-injector");
        let done = run(config, listener, shutdown).await;
        signals.abort();
        Ok(done?)
    })
}
