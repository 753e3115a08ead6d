//! What is answered on which path, within which bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use devsync_protocol::contract::MUTATE_PATH;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::metrics::{Metrics, Outcome};
use super::places::Places;
use super::review::{self, ReviewError};
use super::settings::Settings;

/// An object is at most 1.5 MiB in etcd and 3 MiB in a request; a review may hold an old and a new one.
const BODY: usize = 8 * 1024 * 1024;
/// Bodies in memory at a time, in KiB: a burst of large ones waits, and does not end the process.
const BODIES: u32 = 16 * 1024;
/// Within the 5 s that API servers wait.
const DEADLINE: Duration = Duration::from_secs(4);

/// Why a request is not answered with a review; the API server passes over each of these.
#[derive(Debug, Error)]
enum HttpError {
    #[error("the body is larger than {BODY} bytes")]
    Large,
    #[error("the body ended early")]
    Body(#[source] axum::Error),
    #[error("not answered within {} s", DEADLINE.as_secs())]
    Late,
    #[error(transparent)]
    Review(#[from] ReviewError),
}

/// What handlers share.
pub(super) struct App {
    pub(super) settings: Settings,
    pub(super) places: Places,
    pub(super) metrics: Metrics,
    /// All that requests need is known.
    pub(super) known: AtomicBool,
    /// The end was asked for.
    pub(super) ending: AtomicBool,
    bodies: Semaphore,
}

impl App {
    pub(super) fn new(offline: bool) -> Self {
        Self {
            settings: Settings::default(),
            places: Places::new(offline),
            metrics: Metrics::default(),
            known: AtomicBool::new(offline),
            ending: AtomicBool::new(false),
            bodies: Semaphore::new(BODIES as usize),
        }
    }
}

/// All paths.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(MUTATE_PATH, post(mutate))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(axum::middleware::from_fn_with_state(app.clone(), part))
        .with_state(app)
}

/// While this replica ends, it asks HTTP/1.1 clients to go elsewhere next time.
async fn part(State(app): State<Arc<App>>, request: Request<Body>, next: axum::middleware::Next) -> Response {
    let old = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if old && app.ending.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if app.ending.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "ending\n")
    } else if app.known.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the namespaces are not known yet\n")
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.metrics.text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn mutate(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let begun = Instant::now();
    let answered = timeout(DEADLINE, reviewed(&app, &headers, body));
    match answered.await.unwrap_or(Err(HttpError::Late)) {
        Ok(answer) => {
            app.metrics.warnings.inc_by(answer.warnings as u64);
            app.metrics.request(answer.outcome, begun.elapsed());
            axum::Json(answer.body).into_response()
        }
        Err(error) => {
            app.metrics.request(Outcome::Refused, begun.elapsed());
            refusal(&error)
        }
    }
}

async fn reviewed(app: &App, headers: &HeaderMap, body: Body) -> Result<review::Answer, HttpError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > BODY) {
        return Err(HttpError::Large);
    }
    let share = u32::try_from(length.unwrap_or(BODY) / 1024 + 1).unwrap_or(BODIES);
    // Never closed.
    let _share = app.bodies.acquire_many(share).await.map_err(|_| HttpError::Late)?;
    let body = whole(body).await?;
    let request = review::read(&body)?;
    drop(body);
    let (place, unsure) = app.places.of(&request.namespace).await;
    Ok(review::answer(&request, &app.settings.now(), &place, unsure))
}

async fn whole(body: Body) -> Result<Bytes, HttpError> {
    to_bytes(body, BODY).await.map_err(|error| {
        // The limit's own type is private to the library below.
        let large = std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("length limit"));
        if large { HttpError::Large } else { HttpError::Body(error) }
    })
}

fn refusal(error: &HttpError) -> Response {
    let status = match error {
        HttpError::Large => StatusCode::PAYLOAD_TOO_LARGE,
        HttpError::Late => StatusCode::SERVICE_UNAVAILABLE,
        HttpError::Body(_) | HttpError::Review(_) => StatusCode::BAD_REQUEST,
    };
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    tracing::warn!(error = text, "a request was not answered");
    (status, format!("{text}\n")).into_response()
}
