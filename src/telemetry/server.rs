//! The HTTP server for `/metrics`, `/healthz` and `/readyz`.
//!
//! In: the metrics, and a function that reports readiness. Out: answers on a separate port, without authentication,
//! because they contain no secrets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Metrics;

/// How long requests in progress may take after the shutdown begins.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether this process can work, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What is missing; empty when the process is ready.
    pub missing: Vec<String>,
    /// Problems that an administrator should fix, although the process can work.
    pub warnings: Vec<String>,
}

/// A function that reports the readiness of the process.
pub type ReadinessCheck = Arc<dyn Fn() -> Readiness + Send + Sync>;

#[derive(Clone)]
struct ServerState {
    metrics: Arc<Metrics>,
    ready: ReadinessCheck,
}

/// Listens on the address and logs it. With port 0, the system chooses a free port.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("--metrics-listen: cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "serving metrics");
    Ok(listener)
}

/// Serves requests until `cancel`, then finishes those in progress.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    ready: ReadinessCheck,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(ServerState { metrics, ready });
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(cancel.clone().cancelled_owned())
        .into_future();
    let shutdown_timeout = async {
        cancel.cancelled().await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        served = served => served.context("serving metrics"),
        // A client that sends only half a request must not keep the process alive.
        () = shutdown_timeout => Ok(()),
    }
}

async fn metrics_text(State(state): State<ServerState>) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    (content_type, state.metrics.encode())
}

async fn readyz(State(state): State<ServerState>) -> (StatusCode, String) {
    (state.ready)().response()
}

impl Readiness {
    fn response(&self) -> (StatusCode, String) {
        let warnings = self
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}\n"));
        let warnings: String = warnings.collect();
        if self.missing.is_empty() {
            return (StatusCode::OK, format!("ok\n{warnings}"));
        }
        let missing = self.missing.join("\n");
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{missing}\n{warnings}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_shown_and_does_not_affect_readiness() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.response(), (StatusCode::OK, "ok\n".to_owned()));
        readiness.warnings.push("unbound".to_owned());
        let warned = "ok\nwarning: unbound\n".to_owned();
        assert_eq!(readiness.response(), (StatusCode::OK, warned));
        readiness.missing.push("pods".to_owned());
        let missing = "pods\nwarning: unbound\n".to_owned();
        assert_eq!(
            readiness.response(),
            (StatusCode::SERVICE_UNAVAILABLE, missing)
        );
    }
}
