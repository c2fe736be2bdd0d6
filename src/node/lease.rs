//! The node's lease: its heartbeat, which the node controller trusts more than the status.
//!
//! In: the node's UID as it comes to be known. Out: a lease that is renewed every 10 s, and that the node's
//! end takes along.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::call::{self, Target};

/// The namespace of all node leases.
const NAMESPACE: &str = "kube-node-lease";
/// How long a lease is good for, in seconds: what kubelets use.
const LASTS: i32 = 40;
/// How often it is renewed: a quarter of that, as kubelets do.
const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// The field manager of leases.
const FIELD_MANAGER: &str = "burstpool-lease";
/// How long the first renewal waits for the node to be seen.
const KNOWN: Duration = Duration::from_secs(3);
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// Renews the lease of a node until `cancel`. Nothing else is waited for: an API server that is slow to take the
/// node's status must not make the node unreachable.
pub async fn keep(
    client: &Client,
    name: &str,
    uid: watch::Receiver<Option<String>>,
    cancel: &CancellationToken,
) {
    // Without it the first beat would take away the owner that the lease has.
    let mut known = uid.clone();
    let known = tokio::time::timeout(KNOWN, known.wait_for(Option::is_some));
    if cancel.run_until_cancelled(known).await.is_none() {
        return;
    }
    let mut beat = tokio::time::interval(RENEWED_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(beat.tick()).await.is_some() {
        let lease = lease(name, uid.borrow().clone(), Timestamp::now());
        if let Err(error) = renew(client, &lease).await {
            tracing::warn!(node = %name, %error, "renewing the lease");
        }
    }
}

/// The lease of a node as of `now`; it goes when the node of this UID goes.
fn lease(name: &str, uid: Option<String>, now: Timestamp) -> Lease {
    let owner = uid.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid,
        ..OwnerReference::default()
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(LASTS),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// Renews the lease.
async fn renew(client: &Client, lease: &Lease) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let name = lease.metadata.name.clone().unwrap_or_default();
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(lease);
    let sent = leases.patch(&name, &apply, &patch);
    call::in_time(PATIENCE, sent).await.map(drop)
}

/// Removes the lease of a node, or the one that a node has left that is gone. The lease of another node that has
/// the name since stays.
pub async fn remove(client: &Client, name: &str, node: Option<&Target>) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = call::find(PATIENCE, &leases, name).await?;
    let lease = lease.filter(|lease| is_of(lease, node));
    let Some(lease) = lease.and_then(|lease| Target::of(&lease.metadata)) else {
        return Ok(());
    };
    let removed = call::delete(PATIENCE, &leases, &lease, None).await;
    removed.map(drop)
}

/// Whether the lease has no owner, or this node is its owner.
fn is_of(lease: &Lease, node: Option<&Target>) -> bool {
    let mut owners = lease.metadata.owner_references.iter().flatten();
    owners.all(|owner| node.is_none_or(|node| node.uid == owner.uid))
}
