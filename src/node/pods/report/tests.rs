//! What is told once is told, also when the API server is not there for a while.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use kube::client::Body;
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::super::herd::News;
use super::super::shown::Shown;
use super::super::{Context, ORPHAN_GRACE, Parts, SWEEP_EVERY};
use super::*;
use crate::aci::client::{Client as Azure, Cloud, Credential, Scope};
use crate::aci::names::{GroupName, Owner};
use crate::api::Placement;
use crate::node::observed::Observed;

/// An API server that answers everything with that status.
fn kubernetes(status: &Arc<AtomicU16>) -> kube::Client {
    let status = status.clone();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let code = status.load(Ordering::Relaxed);
        let body = if code < 400 {
            json!({"metadata": {}, "involvedObject": {}})
        } else {
            json!({"kind": "Status", "status": "Failure", "reason": "", "message": "", "code": code})
        };
        let answer = http::Response::builder().status(code);
        std::future::ready(answer.body(Body::from(body.to_string().into_bytes())))
    });
    kube::Client::new(service, "default")
}

fn keeper(status: &Arc<AtomicU16>) -> Keeper {
    let nowhere = Credential::File(PathBuf::from("/nowhere"));
    let context = Context::new(Parts {
        client: kubernetes(status),
        azure: Azure::new(&Cloud::default(), nowhere, reqwest::Client::new()),
        scope: Scope {
            subscription: "s".to_owned(),
            resource_group: "rg".to_owned(),
        },
        owner: Owner {
            cluster: "c".to_owned(),
            pool: "p".to_owned(),
            node: "n".to_owned(),
        },
        placement: Placement::default(),
        tags: BTreeMap::new(),
        address: "10.0.0.1".to_owned(),
        pace: Arc::default(),
        trouble: Arc::new(Notify::new()),
        quota: Arc::default(),
        changed: Arc::new(Notify::new()),
        sweep_every: SWEEP_EVERY,
        orphan_grace: ORPHAN_GRACE,
        kube_proxy: None,
        deletion_cost: 0,
    });
    let pod = json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
        "spec": {"containers": []},
    });
    let observed: Observed = serde_json::from_value(pod).expect("a pod");
    let name = GroupName::of("c", &observed.pod);
    let (sender, news) = watch::channel(News::None);
    let shown = watch::channel(Shown::Nothing).1;
    Keeper::new(
        Arc::new(context),
        observed,
        name,
        (Arc::new(sender), news),
        shown,
    )
}

#[tokio::test]
async fn an_event_that_could_not_be_written_is_told_later_and_one_that_is_refused_is_not() {
    let status = Arc::new(AtomicU16::new(503));
    let mut keeper = keeper(&status);
    keeper.warn("FailedMount", "something is missing");
    keeper.say(Say::Event).await;
    assert_eq!(keeper.events.len(), 1, "it is still to be told");
    assert!(keeper.not_written_before.is_some(), "and not in a loop");
    status.store(201, Ordering::Relaxed);
    keeper.say(Say::Event).await;
    assert_eq!(keeper.events.len(), 0);

    status.store(403, Ordering::Relaxed);
    keeper.warn("Unsupported", "something else");
    keeper.say(Say::Event).await;
    assert_eq!(keeper.events.len(), 0, "its namespace may be going");
}
