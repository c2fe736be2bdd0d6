//! The alert receiver: serves Alertmanager's webhook on a port of its own.
//!
//! In: POST requests to `/alerts` with a bearer token. The token's file is read for each request, so that it
//! can be replaced. Out: the firing alerts of each trigger, and a count of refused requests by reason. Until
//! the pools' triggers are known, the receiver answers 503, and Alertmanager retries.
//!
//! Only the leader listens, because only its state is used. If a DNS name has the addresses of all replicas
//! (`config/default` creates such a Service), a sender tries the next address when a connection is refused, so
//! each alert reaches the leader at once. Behind a single address, Alertmanager retries until the leader
//! answers; the same happens while there is no leader.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::TriggerContext;
use crate::api::{BurstPool, FiringAlert, TriggerKind};
use crate::trigger::alert::{self, ActiveAlerts, AlertNotice};

/// The largest request body that is read, in bytes: enough for hundreds of alerts.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// The timeout for receiving a request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers that are under way may take when the receiver ends. It is shorter than the time after which
/// another replica may lead.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// The most connections at the same time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How soon listening is tried again after it failed.
const BIND_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The settings of the receiver.
#[derive(Clone, Debug)]
pub struct ReceiverSettings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The file with the bearer token that senders must present.
    pub token_file: PathBuf,
}

/// Pool name and trigger name.
type AlertKey = (String, String);

/// The firing alerts of each trigger.
#[derive(Default)]
pub(super) struct FiringAlerts {
    firing: Mutex<BTreeMap<AlertKey, ActiveAlerts>>,
    /// Why no alerts can arrive; `None` if they can. Also notified when alerts have arrived.
    receiver_error: watch::Sender<Option<String>>,
}

impl FiringAlerts {
    /// Adds a trigger with the alerts that its status has. Changes nothing if the trigger is known already.
    pub fn register(&self, key: &AlertKey, status_alerts: &[FiringAlert]) {
        let mut firing = self.firing.lock();
        firing
            .entry(key.clone())
            .or_insert_with(|| ActiveAlerts::from_status(status_alerts));
    }

    /// Forgets a trigger that was removed.
    pub fn forget(&self, key: &AlertKey) {
        self.firing.lock().remove(key);
    }

    /// The firing alerts of a trigger.
    pub fn get(&self, key: &AlertKey) -> ActiveAlerts {
        self.firing.lock().get(key).cloned().unwrap_or_default()
    }

    /// Records whether alerts can arrive: `None` if they can, or else why not.
    pub fn set_receiver_error(&self, why: Option<String>) {
        self.receiver_error.send_replace(why);
    }

    /// Why no alerts can arrive; `None` if they can.
    pub fn receiver_error(&self) -> Option<String> {
        self.receiver_error.borrow().clone()
    }

    /// Changes whenever alerts have arrived, or whether they can arrive has changed.
    pub fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.receiver_error.subscribe()
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AlertRefusal {
    Unauthenticated,
    NotReady,
    TooLarge,
    TooSlow,
    Malformed(String),
    WrongPath,
    WrongMethod,
    NoToken(String),
}

impl AlertRefusal {
    /// The HTTP status, and the value of the metric's label.
    fn status_and_label(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Self::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::WrongPath => (StatusCode::NOT_FOUND, "wrong_path"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method"),
            Self::NoToken(_) => (StatusCode::SERVICE_UNAVAILABLE, "no_token"),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Unauthenticated => {
                "the bearer token from --alerts-token-file is required".to_owned()
            }
            Self::NotReady => {
                "burstpool has not started all triggers yet, or this replica is shutting down: send again"
                    .to_owned()
            }
            Self::TooLarge => format!("more than {MAX_REQUEST_BYTES} bytes"),
            Self::TooSlow => format!("the body did not arrive within {READ_TIMEOUT:?}"),
            Self::Malformed(why) => why.clone(),
            Self::WrongPath => "alerts are sent to /alerts".to_owned(),
            Self::WrongMethod => "alerts are sent by POST".to_owned(),
            // The sender must not learn the path of the file.
            Self::NoToken(_) => "the receiver's own token cannot be read".to_owned(),
        }
    }
}

/// Listens until `cancel`.
pub(super) async fn serve(
    settings: &ReceiverSettings,
    shared: &Arc<TriggerContext>,
    cancel: &CancellationToken,
) {
    let receiver = Receiver {
        shared: shared.clone(),
        token_file: settings.token_file.clone(),
        cancel: cancel.clone(),
    };
    let router = router(receiver);
    loop {
        match TcpListener::bind(settings.listen).await {
            Ok(listener) => {
                shared.alerts.set_receiver_error(None);
                return accept(&listener, &router, cancel).await;
            }
            Err(error) => {
                let address = settings.listen;
                tracing::error!(%address, %error, "cannot listen for alerts");
                let why = format!("the operator cannot listen for alerts at {address}: {error}");
                shared.alerts.set_receiver_error(Some(why));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(BIND_RETRY_INTERVAL) => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// Serves connections until `cancel`, then finishes the requests under way.
async fn accept(listener: &TcpListener, router: &Router, cancel: &CancellationToken) {
    let (tasks, permits) = (
        TaskTracker::new(),
        Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    );
    tracing::info!(address = ?listener.local_addr(), "listening for alerts");
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let (accepted, permit) = tokio::select! {
            Some(next) = next => next,
            () = cancel.cancelled() => break,
            else => break,
        };
        let Ok((stream, _)) = accepted else {
            // Most likely the process has no free file descriptors, which is temporary.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (service, shutdown) = (TowerToHyperService::new(router.clone()), cancel.clone());
        tasks.spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
            server
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_TIMEOUT);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                // Errors of the connection are of no interest to the receiver.
                _ = connection.as_mut() => {}
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, connection).await;
                }
            }
            drop(permit);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// The state of the request handlers.
#[derive(Clone)]
struct Receiver {
    shared: Arc<TriggerContext>,
    token_file: PathBuf,
    /// Cancelled when the receiver ends.
    cancel: CancellationToken,
}

fn router(receiver: Receiver) -> Router {
    let refuse = |refusal: AlertRefusal| {
        move |State(receiver): State<Receiver>| async move { receiver.refuse(&refusal) }
    };
    let alerts = post(receive_alerts).fallback(refuse(AlertRefusal::WrongMethod));
    Router::new()
        .route("/alerts", alerts)
        .fallback(refuse(AlertRefusal::WrongPath))
        .with_state(receiver)
}

async fn receive_alerts(State(receiver): State<Receiver>, request: Request) -> Response {
    match receiver.parse_request(request).await {
        Ok(notices) => {
            // Once the receiver ends, a pool's status may not get the alerts: the sender must retry at the next
            // leader.
            let is_ending = receiver.cancel.is_cancelled();
            if !is_ending && receiver.shared.apply_notices(&notices, Timestamp::now()) {
                StatusCode::OK.into_response()
            } else {
                // The retry delivers the same alerts again, which changes nothing.
                receiver.refuse(&AlertRefusal::NotReady)
            }
        }
        Err(refusal) => receiver.refuse(&refusal),
    }
}

impl Receiver {
    /// Authenticates the sender before it reads any of the body.
    async fn parse_request(&self, request: Request) -> Result<Vec<AlertNotice>, AlertRefusal> {
        let (head, body) = request.into_parts();
        self.authenticate(&head.headers).await?;
        let content_length = head.headers.get(http::header::CONTENT_LENGTH);
        let content_length =
            content_length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if content_length.is_some_and(|length| length > MAX_REQUEST_BYTES) {
            return Err(AlertRefusal::TooLarge);
        }
        let body = read_body(body).await?;
        alert::parse(&body).map_err(AlertRefusal::Malformed)
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<(), AlertRefusal> {
        let token = tokio::fs::read_to_string(&self.token_file).await;
        let token = token.map_err(|error| AlertRefusal::NoToken(error.to_string()))?;
        if token.trim().is_empty() {
            return Err(AlertRefusal::NoToken("it is empty".to_owned()));
        }
        let presented = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let presented = presented.and_then(|value| value.split_once(' '));
        let presented = presented.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        // Comparing digests instead of tokens leaks nothing about the token through timing.
        let digest = |text: &str| Sha256::digest(text.trim().as_bytes());
        match presented {
            Some((_, presented)) if digest(presented) == digest(&token) => Ok(()),
            _ => Err(AlertRefusal::Unauthenticated),
        }
    }

    fn refuse(&self, refusal: &AlertRefusal) -> Response {
        let (status, reason) = refusal.status_and_label();
        self.shared.metrics.count_refused_alert(reason);
        if let AlertRefusal::NoToken(why) = refusal {
            let file = self.token_file.display();
            tracing::warn!(%file, why, "cannot read the token of the alert receiver");
        } else {
            tracing::debug!(reason, "alerts refused");
        }
        (status, format!("{}\n", refusal.message())).into_response()
    }
}

async fn read_body(body: Body) -> Result<bytes::Bytes, AlertRefusal> {
    match tokio::time::timeout(READ_TIMEOUT, to_bytes(body, MAX_REQUEST_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => {
            let error = error.into_inner();
            if error.is::<http_body_util::LengthLimitError>() {
                Err(AlertRefusal::TooLarge)
            } else {
                Err(AlertRefusal::Malformed(format!(
                    "the body ends early: {error}"
                )))
            }
        }
        Err(_) => Err(AlertRefusal::TooSlow),
    }
}

impl TriggerContext {
    /// Records the alerts of a request for every trigger that they match. Returns `false` if one of these
    /// triggers has not started or the pools have not been listed yet: the sender must then retry, or that
    /// trigger would miss the alerts.
    fn apply_notices(&self, notices: &[AlertNotice], now: Timestamp) -> bool {
        // Checked first: otherwise a pool that is listed in between would be missed.
        let are_listed = self.cache.not_synced().is_empty();
        let pools = self.cache.all_pools();
        let (has_changed, missed) =
            dispatch_notices(&pools, &mut self.alerts.firing.lock(), notices, now);
        if has_changed {
            self.alerts.receiver_error.send_modify(|_| {});
        }
        if let Some((pool, trigger)) = &missed {
            tracing::warn!(
                pool,
                trigger,
                "alerts for a trigger that has not started; the sender must retry"
            );
        }
        missed.is_none() && are_listed
    }
}

/// Records the alerts for every trigger that they match. Returns whether any trigger changed, and a matching
/// trigger that has not started. A trigger that cannot start must not keep the alerts from the others.
fn dispatch_notices(
    pools: &[Arc<BurstPool>],
    firing: &mut BTreeMap<AlertKey, ActiveAlerts>,
    notices: &[AlertNotice],
    now: Timestamp,
) -> (bool, Option<AlertKey>) {
    let (mut has_changed, mut missed) = (false, None);
    for pool in pools {
        let name = pool.metadata.name.clone().unwrap_or_default();
        for trigger in &pool.spec.triggers {
            let Ok(TriggerKind::Alert(spec)) = trigger.kind() else {
                continue;
            };
            let key = (name.clone(), trigger.name.clone());
            if let Some(firing) = firing.get_mut(&key) {
                has_changed |= firing.apply(spec, notices, now);
            } else if pool.metadata.deletion_timestamp.is_none()
                && notices.iter().any(|notice| alert::matches(spec, notice))
            {
                missed = Some(key);
            }
        }
    }
    (has_changed, missed)
}

#[cfg(test)]
mod tests;
