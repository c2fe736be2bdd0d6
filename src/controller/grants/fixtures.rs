//! Executes plans without a cluster, for the tests of this module.
//!
//! In: a pool, and pods without a node. Out: an [`Executor`], and a [`ScriptedServer`] whose calls the test
//! answers, in the order that it chooses. Only Events are accepted automatically.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::events::EventPublisher;
use super::executor::{Executor, ExecutorParts};
use super::in_flight::GrantSender;
use super::leadership::TermCounter;
use crate::api::{BurstPool, LossSet, Reservation};
use crate::burst::decision::{PodDecision, SlotState};
use crate::burst::{PodOutcome, PodReference};
use crate::controller::cache::cluster::ClusterCache;

/// Shorter than the timeout of any caller, and longer than any pause between two calls.
const NEXT_CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// A call that waits for its answer. If this value is dropped, the answer is lost.
pub struct PendingCall {
    /// Method and path, such as `PATCH pods/web-1`.
    pub what: String,
    pub body: Value,
    answer: oneshot::Sender<(u16, Value)>,
}

impl PendingCall {
    /// Answers with this object.
    pub fn respond(self, object: &impl serde::Serialize) {
        let object = serde_json::to_value(object).expect("JSON");
        self.answer.send((200, object)).expect("the client waits");
    }

    /// Answers a patch of this pod with the patched pod.
    pub fn respond_patched(self, name: &str) {
        let pod = apply_patch(name, &self.body);
        self.respond(&pod);
    }

    /// Answers with an error of this code.
    pub fn respond_error(self, code: u16) {
        let reason = match code {
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            422 => "Invalid",
            _ => "",
        };
        let status = json!({"kind": "Status", "status": "Failure", "reason": reason, "message": "no", "code": code});
        self.answer.send((code, status)).expect("the client waits");
    }
}

/// An API server whose answers and their order the test chooses.
pub struct ScriptedServer {
    calls: mpsc::UnboundedReceiver<PendingCall>,
    events: Arc<Mutex<Vec<String>>>,
}

impl ScriptedServer {
    pub fn new() -> (Self, Client) {
        let (call_sender, calls) = mpsc::unbounded_channel();
        let published: Arc<Mutex<Vec<String>>> = Arc::default();
        let events = published.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (call_sender, events) = (call_sender.clone(), events.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (code, body) = if parts.uri.path().ends_with("/events") {
                    let (reason, about) = (&body["reason"], &body["regarding"]["name"]);
                    let event = format!("{reason} {about}").replace('"', "");
                    events.lock().push(event);
                    (201, body)
                } else {
                    let (answer, answered) = oneshot::channel();
                    let what = request_line(&parts);
                    drop(call_sender.send(PendingCall { what, body, answer }));
                    answered.await?
                };
                let answer = http::Response::builder().status(code);
                let answer = answer.body(Body::from(body.to_string().into_bytes()));
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answer?)
            }
        });
        (
            Self {
                calls,
                events: published,
            },
            Client::new(service, "default"),
        )
    }

    /// The next call; it must come within [`NEXT_CALL_TIMEOUT`].
    pub async fn next_call(&mut self) -> PendingCall {
        let call = tokio::time::timeout(NEXT_CALL_TIMEOUT, self.calls.recv()).await;
        call.expect("a call in time").expect("a client")
    }

    /// The next call, which must be `what`.
    pub async fn expect(&mut self, what: &str) -> PendingCall {
        let call = self.next_call().await;
        assert_eq!(call.what, what, "{}", call.body);
        call
    }

    /// The next two calls, in any order; sorted by method and path.
    pub async fn next_two_calls(&mut self) -> [PendingCall; 2] {
        let mut calls = [self.next_call().await, self.next_call().await];
        calls.sort_by(|first, second| first.what.cmp(&second.what));
        calls
    }

    /// Checks that no call comes until time advances or a call is answered.
    pub async fn expect_nothing(&mut self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let call = self.calls.try_recv().map(|call| call.what);
        assert_eq!(call.ok(), None);
    }

    /// The Events so far, such as `Granted web-1`.
    pub async fn events(&self) -> Vec<String> {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.events.lock().clone()
    }
}

fn request_line(parts: &http::request::Parts) -> String {
    let path: Vec<&str> = parts.uri.path().split('/').collect();
    let kinds = ["pods", "burstpools", "leases", "jobs"];
    let kind = path.iter().position(|part| kinds.contains(part));
    format!("{} {}", parts.method, path[kind.unwrap_or(0)..].join("/"))
}

/// The pool `shop` at this resource version, with this leader.
pub fn pool(version: &str, leader: &str) -> BurstPool {
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
        "metadata": {"name": "shop", "uid": "u", "resourceVersion": version, "generation": 1},
        "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}]},
        "status": {"leader": leader},
    });
    serde_json::from_value(pool).expect("a pool")
}

/// A pod without a node.
pub fn pod(name: &str) -> Pod {
    let pod = json!({
        "metadata": {"namespace": "default", "name": name, "uid": name, "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": []},
    });
    serde_json::from_value(pod).expect("a pod")
}

/// The pod after the patch.
pub fn apply_patch(name: &str, patch: &Value) -> Pod {
    let mut pod = serde_json::to_value(pod(name)).expect("JSON");
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).expect("it is a JSON Patch");
    json_patch::patch(&mut pod, &operations).expect("it applies");
    pod["metadata"]["resourceVersion"] = "2".into();
    serde_json::from_value(pod).expect("a pod")
}

/// The decision to grant the pod.
pub fn decision(name: &str, slot: SlotState) -> PodDecision {
    PodDecision {
        pod: PodReference {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            resource_version: "1".to_owned(),
        },
        workload: "web".to_owned(),
        outcome: PodOutcome::Grant {
            placement: "a".to_owned(),
            not_kept: LossSet::default(),
        },
        slot,
        hold_start: None,
    }
}

/// The pod's reservation, held by this instance.
pub fn reservation(name: &str) -> Reservation {
    let reservation = json!({"uid": name, "namespace": "default", "name": name, "workload": "web",
        "holder": "us-1", "resourceVersion": "1"});
    serde_json::from_value(reservation).expect("a reservation")
}

pub fn term_counter() -> TermCounter {
    TermCounter {
        instance: "us".to_owned(),
        terms_begun: 0,
        clock: Arc::default(),
    }
}

/// An executor of plans of `pool`; the pods `waiting` have no node.
pub fn executor(pool: &BurstPool, waiting: &[&str], client: &Client) -> Executor {
    let waiting = waiting.iter().map(|name| pod(name)).collect();
    let cache = Arc::new(ClusterCache::listed(pool.clone(), waiting));
    let (publisher, publishing) = EventPublisher::new(client.clone(), "us");
    tokio::spawn(publishing);
    Executor {
        snapshot: Arc::new(cache.snapshot()),
        parts: Arc::new(ExecutorParts {
            client: client.clone(),
            cache,
            identity: "test".to_owned(),
            lease_namespace: "default".to_owned(),
            metrics: Arc::default(),
        }),
        pool: Arc::new(pool.clone()),
        pool_name: "shop".to_owned(),
        grant_sender: GrantSender {
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            notifier: publisher.result_notifier(),
        },
    }
}
