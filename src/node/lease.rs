//! The node's lease: its heartbeat, which the node controller trusts more than the status.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};

/// The namespace of all node leases.
const NAMESPACE: &str = "kube-node-lease";
/// How long a lease is good for, in seconds: what kubelets use.
const LASTS: i32 = 40;
/// How often it is renewed: a quarter of that, as kubelets do.
pub const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// The field manager of leases.
const FIELD_MANAGER: &str = "burstpool-lease";
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// The lease of `node` as of `now`; it goes when the node goes.
pub fn lease(name: &str, node: Option<&Node>, now: Timestamp) -> Lease {
    let owner = node
        .and_then(|node| node.metadata.uid.clone())
        .map(|uid| OwnerReference {
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
pub async fn renew(client: &Client, lease: &Lease) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let name = lease.metadata.name.clone().unwrap_or_default();
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(lease);
    let sent = leases.patch(&name, &apply, &patch);
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(renewed) => renewed.map(drop),
        Err(late) => Err(kube::Error::Service(Box::new(late))),
    }
}

/// Removes the lease.
pub async fn remove(client: &Client, name: &str) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let parameters = DeleteParams::default();
    match tokio::time::timeout(PATIENCE, leases.delete(name, &parameters)).await {
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Ok(removed) => removed.map(drop),
        Err(late) => Err(kube::Error::Service(Box::new(late))),
    }
}
