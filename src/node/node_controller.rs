//! Keeps a virtual node registered.
//!
//! In: the node's [`NodeConfig`] as it changes, and the watch of the Node object. Out: the Node object, corrected
//! within moments of a change of either, its status at least once a minute, and its lease, whose renewal does not
//! wait for the node. [`registration_steps`](super::registration_steps) computes the steps; this module executes
//! them.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::node_object::NodeConfig;
use super::registration_steps::{RESYNC_INTERVAL, RegistrationStep, steps};
use super::{last_placement, lease};
use crate::api;
use crate::k8s::call;
use crate::k8s::call::ObjectTarget;
use crate::k8s::rejected::WriteBackoff;
use crate::k8s::watch_health::{ok_or_log, report_item_errors};

/// The field manager of the node's labels, taints and status.
const FIELD_MANAGER: &str = "burstpool-node";
/// The longest back-off after steps that the API server rejects: it is short, because a node that is not registered
/// takes no pods.
const MAX_REJECTED_INTERVAL: Duration = Duration::from_secs(60);
/// Timeout of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a registration ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationEnd {
    /// It was cancelled.
    Cancelled,
    /// The node belongs to another pool, or not to burstpool: it is left alone.
    AnotherOwner,
}

/// Keeps the node registered until `cancel`, and then leaves it as it is. Ends at once if the node has another
/// owner.
pub async fn run(
    client: Client,
    config: watch::Receiver<NodeConfig>,
    cancel: CancellationToken,
) -> RegistrationEnd {
    let name = config.borrow().name();
    let (uid_sender, uid_receiver) = watch::channel(None);
    // The lease ends with the node's task, which may also end because the sender of `config` is dropped.
    let lease_cancel = cancel.child_token();
    let node = async {
        let end = reconcile_loop(&client, config, uid_sender, &cancel).await;
        lease_cancel.cancel();
        end
    };
    let (end, ()) = tokio::join!(
        node,
        lease::run(&client, &name, uid_receiver, &lease_cancel)
    );
    end
}

async fn reconcile_loop(
    client: &Client,
    mut config: watch::Receiver<NodeConfig>,
    uid: watch::Sender<Option<String>>,
    cancel: &CancellationToken,
) -> RegistrationEnd {
    let name = config.borrow().name();
    let nodes: Api<Node> = Api::all(client.clone());
    let guarded: Api<DeserializeGuard<Node>> = Api::all(client.clone());
    let events = watcher::watch_object(guarded, &name).default_backoff();
    let mut events = Box::pin(report_item_errors("a virtual node", events));
    let mut resync = tokio::time::interval(RESYNC_INTERVAL);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut live: Option<Option<Node>> = None;
    let mut refused = StepRejections::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return RegistrationEnd::Cancelled,
            event = events.next() => match event.map(watched_node) {
                // The answer to a write can be newer than the watch. A write that is made from the older version
                // would only be rejected.
                Some(Some(node)) if is_older(node.as_ref(), live.as_ref()) => continue,
                Some(Some(node)) => live = Some(node),
                // The watch failed, or the node cannot be decoded; the watcher tries again.
                Some(None) => continue,
                None => return RegistrationEnd::Cancelled,
            },
            changed = config.changed() => if changed.is_err() { return RegistrationEnd::Cancelled },
            _ = resync.tick() => {}
        }
        // No step before the watch has shown the node, or that it does not exist.
        let Some(node) = &mut live else { continue };
        let wanted = config.borrow_and_update().clone();
        let owner = node
            .as_ref()
            .and_then(|node| last_placement::other_owner(node, &wanted.pool, &wanted.pool_uid));
        if let Some(owner) = owner {
            tracing::warn!(%owner, "the node has another owner and is left alone");
            return RegistrationEnd::AnotherOwner;
        }
        uid.send_replace(node.as_ref().and_then(|node| node.metadata.uid.clone()));
        reconcile(&nodes, &name, node, &wanted, &mut refused).await;
    }
}

/// What the watch shows: the node, or that there is none. `None` if the watch fails or the node cannot be decoded.
#[allow(clippy::option_option, reason = "no answer is not that there is none")]
fn watched_node(event: watcher::Result<Option<DeserializeGuard<Node>>>) -> Option<Option<Node>> {
    match event {
        Ok(Some(node)) => ok_or_log(node).map(Some),
        Ok(None) => Some(None),
        Err(_) => None,
    }
}

/// The rejections by the API server, by kind of step.
type StepRejections = HashMap<Discriminant<RegistrationStep>, WriteBackoff>;

/// Executes the steps that correct the node, and updates `live` with the answers. A step that the API server
/// rejects is repeated only after a back-off: the configuration may change several times a second.
async fn reconcile(
    nodes: &Api<Node>,
    name: &str,
    live: &mut Option<Node>,
    wanted: &NodeConfig,
    refused: &mut StepRejections,
) {
    for step in steps(live.as_ref(), wanted, Timestamp::now()) {
        let refusals = refused.entry(discriminant(&step));
        let refusals = refusals.or_insert_with(|| WriteBackoff::up_to(MAX_REJECTED_INTERVAL));
        if !refusals.may_write(Instant::now()) {
            continue;
        }
        let result = call::with_timeout(CALL_TIMEOUT, execute_step(nodes, name, &step)).await;
        refusals.answered(&result, Instant::now());
        match result {
            Ok(node) => *live = Some(node),
            // Another client wrote the node first: the watch shows its change, and the steps are computed again.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            }
            Err(error) => {
                tracing::warn!(%error, "cannot update the node");
            }
        }
    }
}

/// Removes the node and its lease if `is_ours` accepts the node. Only the node with the present UID is deleted, not
/// a later one of the same name.
pub async fn unregister(
    client: &Client,
    name: &str,
    is_ours: impl Fn(&Node) -> bool,
) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = call::find(CALL_TIMEOUT, &nodes, name).await?;
    if node.as_ref().is_some_and(|node| !is_ours(node)) {
        return Ok(());
    }
    let node = node.and_then(|node| ObjectTarget::from_metadata(&node.metadata));
    // The lease first: if a call fails, the caller registers the placement again until the next try, which would
    // create a node that was already removed.
    lease::remove(client, name, node.as_ref()).await?;
    let Some(node) = node else { return Ok(()) };
    call::delete(CALL_TIMEOUT, &nodes, &node, None)
        .await
        .map(drop)
}

/// Whether the watch shows an older version of the node than `live`.
fn is_older(watched: Option<&Node>, live: Option<&Option<Node>>) -> bool {
    let (Some(watched), Some(Some(live))) = (watched, live) else {
        return false;
    };
    let version =
        |node: &Node| api::parse_resource_version(node.metadata.resource_version.as_deref()?);
    watched.metadata.uid == live.metadata.uid && version(watched) < version(live)
}

/// Executes a step; returns the node afterwards.
async fn execute_step(
    nodes: &Api<Node>,
    name: &str,
    step: &RegistrationStep,
) -> Result<Node, kube::Error> {
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match step {
        RegistrationStep::Create(node) => {
            tracing::info!("registering the node");
            let post_params = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            nodes.create(&post_params, node).await
        }
        RegistrationStep::Labels(labels) => nodes.patch(name, &params, &Patch::Merge(labels)).await,
        RegistrationStep::Taints { version, taints } => {
            tracing::info!(taints = taints.len(), "setting the node's taints");
            let patch: json_patch::Patch = serde_json::from_value(json!([
                {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
                {"op": "add", "path": "/spec/taints", "value": taints},
            ]))
            .expect("the operations above are a JSON Patch");
            let patch = Patch::Json::<()>(patch);
            nodes.patch(name, &params, &patch).await
        }
        RegistrationStep::Status(status) => {
            nodes
                .patch_status(name, &apply, &Patch::Apply(status_apply_body(name, status)))
                .await
        }
    }
}

fn status_apply_body(name: &str, status: &NodeStatus) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status})
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::node::fixtures::{behind_a_proxy, config, denied};

    #[tokio::test(start_paused = true)]
    async fn a_denied_step_is_not_repeated_with_every_change_of_the_configuration() {
        let (client, sent) = denied();
        let nodes = Api::all(client);
        let mut refused = StepRejections::new();
        let mut in_a_burst = async || {
            for _ in 0..100 {
                reconcile(&nodes, "node", &mut None, &config(), &mut refused).await;
            }
            sent.swap(0, Ordering::Relaxed)
        };
        for pause in [10, 20, 40, 60, 60] {
            assert_eq!(in_a_burst().await, 1);
            tokio::time::sleep(Duration::from_secs(pause - 1)).await;
            assert_eq!(in_a_burst().await, 0, "{pause}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test]
    async fn a_proxy_does_not_make_a_node_or_its_lease_count_as_removed() {
        let client = behind_a_proxy();
        let removed = unregister(&client, "burst-shop-weu", |_| true).await;
        assert!(removed.is_err());
        assert!(
            lease::remove(&client, "burst-shop-weu", None)
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_does_not_block_the_removal_for_ever() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let silent = silent.expect("a port");
        let url = format!("http://{}", silent.local_addr().expect("an address"));
        let config = kube::Config::new(url.parse().expect("a URL"));
        let client = Client::try_from(config).expect("a client");
        let removed = tokio::time::timeout(
            2 * CALL_TIMEOUT,
            unregister(&client, "burst-shop-weu", |_| true),
        )
        .await;
        assert!(removed.expect("it ends").is_err());
        let removed = lease::remove(&client, "burst-shop-weu", None);
        let removed = tokio::time::timeout(2 * CALL_TIMEOUT, removed).await;
        assert!(removed.expect("it ends").is_err());
    }
}
