//! TCP connections become TLS connections become HTTP: each in a task of its own, with deadlines and a limit.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;

/// API servers speak HTTP/1.1 to webhooks, a connection for each request under way: up to 200 from each.
const CONNECTIONS: usize = 1024;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Longer than the 90 s for which API servers keep a connection that is idle: they end it, never this side, so that
/// no request meets an end.
const IDLE: Duration = Duration::from_secs(150);
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 256;
/// When accepting fails (too many open files), it is tried again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop`; then those that are there end in order, within `grace`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    app: Router,
    metrics: &Metrics,
    stop: CancellationToken,
    grace: Duration,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    let http = Arc::new(http());
    // Aborts what is left after the grace.
    let end = CancellationToken::new();
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else { break };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (acceptor, app, http, stop, end) =
            (acceptor.clone(), app.clone(), http.clone(), stop.clone(), end.clone());
        let metrics = metrics.clone();
        tasks.spawn(async move {
            metrics.connections.inc();
            tokio::select! {
                () = end.cancelled() => {}
                () = connection(stream, acceptor, app, &http, &stop, &metrics) => {}
            }
            metrics.connections.dec();
            drop(permit);
        });
    }
    drop(listener);
    tasks.close();
    if timeout(grace, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "connections are cut off");
        end.cancel();
        tasks.wait().await;
    }
}

fn http() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(IDLE)
        .keep_alive_timeout(HANDSHAKE_WITHIN);
    builder
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    app: Router,
    http: &Builder<TokioExecutor>,
    stop: &CancellationToken,
    metrics: &Metrics,
) {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            metrics.handshakes_failed.inc();
            tracing::debug!(%error, "a handshake failed");
            return;
        }
        Err(_) => {
            metrics.handshakes_failed.inc();
            return;
        }
    };
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(served);
    let done = tokio::select! {
        done = &mut served => done,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(error, "a connection ended");
    }
}
