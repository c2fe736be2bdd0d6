//! The node's lease: its heartbeat, which the node controller trusts more than the status.
//!
//! In: the node's UID, once it is known. Out: a Lease that is renewed every 10 s, and that Kubernetes deletes with
//! the node, which owns it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::k8s::call;
use crate::k8s::call::ObjectTarget;

/// The namespace of all node leases.
const NAMESPACE: &str = "kube-node-lease";
/// The lease's duration in seconds: the kubelet's default.
const LEASE_DURATION_SECONDS: i32 = 40;
/// The interval between renewals: a quarter of the duration, as in the kubelet.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// The least difference between two renew times.
const MIN_RENEW_STEP: Duration = Duration::from_millis(1);
/// The field manager of leases.
const FIELD_MANAGER: &str = "burstpool-lease";
/// How long the first renewal waits for the node's UID.
const NODE_UID_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// Renews the lease of a node until `cancel`. It waits for nothing else: an API server that is slow to accept the
/// node's status must not make the node unreachable.
pub async fn run(
    client: &Client,
    name: &str,
    uid: watch::Receiver<Option<String>>,
    cancel: &CancellationToken,
) {
    // Without the UID the first renewal would remove the lease's owner reference.
    let mut has_uid = uid.clone();
    let has_uid = tokio::time::timeout(NODE_UID_TIMEOUT, has_uid.wait_for(Option::is_some));
    if cancel.run_until_cancelled(has_uid).await.is_none() {
        return;
    }
    let mut ticks = tokio::time::interval(RENEW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A renewal that does not know the time in the lease may be earlier than that time.
    let mut last = loop {
        if cancel.run_until_cancelled(ticks.tick()).await.is_none() {
            return;
        }
        match last_renew_time(client, name).await {
            Ok(last) => break last,
            Err(error) => tracing::warn!(%error, "cannot read the lease"),
        }
    };
    ticks.reset_immediately();
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        let time = next_renew_time(last, Timestamp::now());
        let lease = lease(name, uid.borrow().clone(), time);
        match renew(client, &lease).await {
            Ok(()) => last = Some(time),
            Err(error) => tracing::warn!(%error, "cannot renew the lease"),
        }
    }
}

/// The renew time to write at `now`. It is always later than the previous one: the node controller ignores an equal
/// or earlier time, and marks the node unreachable after 50 s without a later one (Kubernetes,
/// `node_lifecycle_controller.go`, `updateNodeHealth`). The operator's clock may be set back, or behind that of the
/// previous leader.
fn next_renew_time(last: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let next = last.and_then(|last| last.checked_add(MIN_RENEW_STEP).ok());
    next.map_or(now, |next| now.max(next))
}

/// The last renew time in the node's lease; `None` if there is no lease, or it was never renewed.
async fn last_renew_time(client: &Client, name: &str) -> Result<Option<Timestamp>, kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = call::find(CALL_TIMEOUT, &leases, name).await?;
    let time = lease.and_then(|lease| lease.spec?.renew_time);
    Ok(time.map(|time| time.0))
}

/// The lease of a node, renewed at `now`; the node with this UID owns it.
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
            lease_duration_seconds: Some(LEASE_DURATION_SECONDS),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// Applies the lease.
async fn renew(client: &Client, lease: &Lease) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let name = lease.metadata.name.clone().unwrap_or_default();
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(lease);
    let sent = leases.patch(&name, &apply, &patch);
    call::with_timeout(CALL_TIMEOUT, sent).await.map(drop)
}

/// Removes the lease of `node`, or, if the node is already gone, the lease that it left behind. The lease of a
/// later node of the same name stays.
pub async fn remove(
    client: &Client,
    name: &str,
    node: Option<&ObjectTarget>,
) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = call::find(CALL_TIMEOUT, &leases, name).await?;
    let lease = lease.filter(|lease| is_owned_by(lease, node));
    let Some(lease) = lease.and_then(|lease| ObjectTarget::from_metadata(&lease.metadata)) else {
        return Ok(());
    };
    let removed = call::delete(CALL_TIMEOUT, &leases, &lease, None).await;
    removed.map(drop)
}

/// Whether the lease has no owner, or `node` owns it; if `node` is `None`, always.
fn is_owned_by(lease: &Lease, node: Option<&ObjectTarget>) -> bool {
    let mut owners = lease.metadata.owner_references.iter().flatten();
    owners.all(|owner| node.is_none_or(|node| node.uid == owner.uid))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_not_renewed_until_its_last_renew_time_is_read() {
        // A leader whose clock was an hour ahead renewed the lease.
        let ahead = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let ahead = ahead.round(jiff::Unit::Second).expect("in range");
        let held = json!({"metadata": {"name": "n"}, "spec": {"renewTime": ahead.to_string()}});
        let written: Arc<Mutex<Vec<Timestamp>>> = Arc::default();
        let (gets, writes) = (Arc::new(Mutex::new(0)), written.clone());
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (gets, writes, held) = (gets.clone(), writes.clone(), held.clone());
            async move {
                let is_get = request.method() == http::Method::GET;
                let sent = request
                    .into_body()
                    .collect()
                    .await
                    .expect("a body")
                    .to_bytes();
                let (code, body) = if is_get {
                    let mut gets = gets.lock();
                    *gets += 1;
                    match *gets {
                        1 | 2 => (
                            500,
                            json!({"kind": "Status", "status": "Failure", "code": 500}),
                        ),
                        _ => (200, held),
                    }
                } else {
                    let sent: Value = serde_json::from_slice(&sent).expect("a lease");
                    let time = sent["spec"]["renewTime"].as_str().expect("a time");
                    writes.lock().push(time.parse().expect("a time"));
                    (200, sent)
                };
                let answer = http::Response::builder().status(code);
                answer.body(Body::from(body.to_string().into_bytes()))
            }
        });
        let client = Client::new(service, "default");
        let (_known, uid) = watch::channel(Some("u".to_owned()));
        let cancel = CancellationToken::new();
        let minute = Duration::from_secs(60);
        let run = tokio::time::timeout(minute, run(&client, "n", uid, &cancel));
        assert!(run.await.is_err(), "it is kept until it is cancelled");
        let written = written.lock();
        assert!(written.len() >= 3, "{written:?}");
        assert!(written[0] > ahead, "{written:?}");
        assert!(
            written.is_sorted_by(|time, next| time < next),
            "{written:?}"
        );
    }

    #[test]
    fn each_renewal_is_later_than_the_one_before_however_the_clock_is_set() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        assert_eq!(next_renew_time(None, at(100)), at(100));
        assert_eq!(next_renew_time(Some(at(90)), at(100)), at(100));
        let mut last = at(100);
        for now in [100, 10, 20, 3600, 3600, 0] {
            let next = next_renew_time(Some(last), at(now));
            let micros = |at: Timestamp| at.as_microsecond();
            assert!(micros(next) > micros(last), "{now}: {next} after {last}");
            last = next;
        }
        assert!(last < at(3601));
    }
}
