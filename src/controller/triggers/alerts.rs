//! The alert receiver: Alertmanager's webhook, on a port of its own.
//!
//! In: POST requests to `/alerts` with the bearer token of a file, which is read for each, so that it can
//! be replaced. Out: which alerts of which trigger fire; refusals are counted by their reason. While a
//! pool's triggers are not known yet the answer is 503: Alertmanager sends again.
//!
//! Only the leader listens: nobody else could remember what it is told. Where a name has the addresses of
//! all replicas (`config/default` makes such a Service) a sender tries the next one when a connection is
//! refused, so each alert comes to the leader at once; behind one address Alertmanager sends again until
//! it does. While nobody leads, too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;
use crate::api::{BurstPool, FiringAlert};
use crate::trigger::alert::{self, Firing, Notice};

/// The longest request that is read: hundreds of alerts.
const LONGEST: usize = 1 << 20;
/// How long a request may take to come in.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many connections there may be at once; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// How soon the port is tried again that could not be listened on.
const AGAIN: Duration = Duration::from_secs(5);

/// Where alerts come in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address.
    pub listen: SocketAddr,
    /// The file with the token that senders must have.
    pub token_file: PathBuf,
}

/// Pool and trigger.
type Key = (String, String);

/// The alerts of each trigger that fire.
#[derive(Default)]
pub(super) struct Alerts {
    firing: Mutex<BTreeMap<Key, Firing>>,
    /// Why none can come in; told also when one has.
    deaf: watch::Sender<Option<String>>,
}

impl Alerts {
    /// A trigger begins, with what its status has kept; nothing changes if it is known.
    pub fn know(&self, key: &Key, kept: &[FiringAlert]) {
        let mut firing = self.lock();
        firing
            .entry(key.clone())
            .or_insert_with(|| Firing::restored(kept));
    }

    /// A trigger is no more.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// The alerts of a trigger.
    pub fn of(&self, key: &Key) -> Firing {
        self.lock().get(key).cloned().unwrap_or_default()
    }

    /// Alerts come in from now on, or none can, for this reason.
    pub fn hears(&self, why_not: Option<String>) {
        self.deaf.send_replace(why_not);
    }

    /// Why no alert can come in.
    pub fn deaf(&self) -> Option<String> {
        self.deaf.borrow().clone()
    }

    /// A word whenever something came in, or can.
    pub fn changed(&self) -> watch::Receiver<Option<String>> {
        self.deaf.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Firing>> {
        self.firing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    Unauthenticated,
    NotReady,
    TooLarge,
    TooSlow,
    Malformed(String),
    WrongPath,
    WrongMethod,
    NoToken(String),
}

impl Refusal {
    /// Its status, and the metric's label.
    fn kind(&self) -> (StatusCode, &'static str) {
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

    fn words(&self) -> String {
        match self {
            Self::Unauthenticated => {
                "a bearer token is needed: that of --alerts-token-file".to_owned()
            }
            Self::NotReady => "the pools' triggers are not all known yet: send again".to_owned(),
            Self::TooLarge => format!("more than {LONGEST} bytes"),
            Self::TooSlow => format!("the body did not come within {PATIENCE:?}"),
            Self::Malformed(why) => why.clone(),
            Self::WrongPath => "alerts are sent to /alerts".to_owned(),
            Self::WrongMethod => "alerts are sent by POST".to_owned(),
            // The sender need not know where our files are.
            Self::NoToken(_) => "the receiver's own token cannot be read".to_owned(),
        }
    }
}

/// Listens until `cancel`.
pub(super) async fn serve(settings: &Settings, shared: &Arc<Shared>, cancel: &CancellationToken) {
    let receiver = Receiver {
        shared: shared.clone(),
        token_file: settings.token_file.clone(),
    };
    let router = router(receiver);
    loop {
        match TcpListener::bind(settings.listen).await {
            Ok(listener) => {
                shared.alerts.hears(None);
                return accept(&listener, &router, cancel).await;
            }
            Err(error) => {
                let address = settings.listen;
                tracing::error!(%address, %error, "listening for alerts");
                let why = format!("the operator cannot listen for alerts at {address}: {error}");
                shared.alerts.hears(Some(why));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = cancel.cancelled() => return,
        }
    }
}

async fn accept(listener: &TcpListener, router: &Router, cancel: &CancellationToken) {
    let (tasks, room) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    tracing::info!(address = ?listener.local_addr(), "taking in alerts");
    loop {
        let next = async {
            let place = room.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let (accepted, place) = tokio::select! {
            Some(next) = next => next,
            () = cancel.cancelled() => break,
            else => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of files, most likely: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (service, until) = (TowerToHyperService::new(router.clone()), cancel.clone());
        tasks.spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
            server
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE);
            tokio::select! {
                // How a sender's connection ends is the sender's matter.
                _ = server.serve_connection(TokioIo::new(stream), service) => {}
                () = until.cancelled() => {}
            }
            drop(place);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// What requests are answered with.
#[derive(Clone)]
struct Receiver {
    shared: Arc<Shared>,
    token_file: PathBuf,
}

fn router(receiver: Receiver) -> Router {
    let refuse = |refusal: Refusal| {
        move |State(receiver): State<Receiver>| async move { receiver.refuse(&refusal) }
    };
    let alerts = post(take).fallback(refuse(Refusal::WrongMethod));
    Router::new()
        .route("/alerts", alerts)
        .fallback(refuse(Refusal::WrongPath))
        .with_state(receiver)
}

async fn take(State(receiver): State<Receiver>, request: Request) -> Response {
    match receiver.read(request).await {
        Ok(notices) => {
            if receiver.shared.take(&notices, Timestamp::now()) {
                StatusCode::OK.into_response()
            } else {
                // What was taken is taken again then, and changes nothing.
                receiver.refuse(&Refusal::NotReady)
            }
        }
        Err(refusal) => receiver.refuse(&refusal),
    }
}

impl Receiver {
    /// Who asks is looked at before anything of the body is.
    async fn read(&self, request: Request) -> Result<Vec<Notice>, Refusal> {
        let (head, body) = request.into_parts();
        self.admit(&head.headers).await?;
        let announced = head.headers.get(http::header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > LONGEST) {
            return Err(Refusal::TooLarge);
        }
        let body = read_all(body).await?;
        alert::read(&body).map_err(Refusal::Malformed)
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = tokio::fs::read_to_string(&self.token_file).await;
        let token = token.map_err(|error| Refusal::NoToken(error.to_string()))?;
        if token.trim().is_empty() {
            return Err(Refusal::NoToken("it is empty".to_owned()));
        }
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.split_once(' '));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        // Digests: how long a comparison takes tells nothing of the token.
        let digest = |text: &str| Sha256::digest(text.trim().as_bytes());
        match shown {
            Some((_, shown)) if digest(shown) == digest(&token) => Ok(()),
            _ => Err(Refusal::Unauthenticated),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let (status, reason) = refusal.kind();
        self.shared.metrics.refused_alert(reason);
        if let Refusal::NoToken(why) = refusal {
            let file = self.token_file.display();
            tracing::warn!(%file, why, "reading the token of the alert receiver");
        } else {
            tracing::debug!(reason, "refusing alerts");
        }
        (status, format!("{}\n", refusal.words())).into_response()
    }
}

async fn read_all(body: Body) -> Result<bytes::Bytes, Refusal> {
    match tokio::time::timeout(PATIENCE, to_bytes(body, LONGEST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => {
            let error = error.into_inner();
            if error.is::<http_body_util::LengthLimitError>() {
                Err(Refusal::TooLarge)
            } else {
                Err(Refusal::Malformed(format!("the body ends early: {error}")))
            }
        }
        Err(_) => Err(Refusal::TooSlow),
    }
}

impl Shared {
    /// Takes in what a request says, for every trigger that it concerns. Whether all of those have begun:
    /// else it would be lost to one.
    fn take(&self, notices: &[Notice], now: Timestamp) -> bool {
        // Asked first: a pool that is listed meanwhile would be missed.
        let are_listed = self.stores.missing().is_empty();
        let pools = self.stores.all_pools();
        let (any, missed) = give(&pools, &mut self.alerts.lock(), notices, now);
        if any {
            self.alerts.deaf.send_modify(|_| {});
        }
        if let Some((pool, trigger)) = &missed {
            tracing::warn!(
                pool,
                trigger,
                "alerts for a trigger that has not begun: sent again"
            );
        }
        missed.is_none() && are_listed
    }
}

/// Gives these to every trigger that they concern. Whether there was one, and one that has not begun: pools
/// whose triggers do not, for whatever reason, are none of the others' business.
fn give(
    pools: &[Arc<BurstPool>],
    firing: &mut BTreeMap<Key, Firing>,
    notices: &[Notice],
    now: Timestamp,
) -> (bool, Option<Key>) {
    let (mut any, mut missed) = (false, None);
    for pool in pools {
        let name = pool.metadata.name.clone().unwrap_or_default();
        for trigger in &pool.spec.triggers {
            let Some(spec) = &trigger.alert else { continue };
            let key = (name.clone(), trigger.name.clone());
            if let Some(firing) = firing.get_mut(&key) {
                any |= firing.take(spec, notices, now);
            } else if pool.metadata.deletion_timestamp.is_none()
                && notices.iter().any(|notice| alert::matches(spec, notice))
            {
                missed = Some(key);
            }
        }
    }
    (any, missed)
}

#[cfg(test)]
mod tests;
