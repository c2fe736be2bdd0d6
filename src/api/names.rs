//! Keys that users and tools see on pods and nodes.

/// Taint and toleration key: which pool a node is of (decision D3; the key that existing manifests
/// tolerate).
pub const PROVIDER_TAINT: &str = "virtual-kubelet.io/provider";
/// Taint that nothing tolerates and that only makes home win when it has room.
pub const LAST_RESORT_TAINT: &str = "burstpool.io/last-resort";
/// Taint of a placement that takes no pods at present.
pub const CLOSED_TAINT: &str = "burstpool.io/closed";
/// Label: which pool a node is of, or which pool a pod was granted by.
pub const POOL_LABEL: &str = "burstpool.io/pool";
/// Annotation of a granted pod: for which of the pool's workloads.
pub const WORKLOAD_ANNOTATION: &str = "burstpool.io/workload";
/// Annotation of a granted pod: when.
pub const GRANTED_AT_ANNOTATION: &str = "burstpool.io/granted-at";
/// Annotation of a granted pod: its own UID. A pod whose template was copied from a granted pod carries the UID of
/// the other, so that the copy is no grant; and before a pod is created, nothing can know its UID.
pub const GRANTED_UID_ANNOTATION: &str = "burstpool.io/granted-uid";
/// Annotation of a granted pod: when its grant expired, since the scheduler placed it on no virtual node.
pub const GRANT_EXPIRED_ANNOTATION: &str = "burstpool.io/grant-expired-at";
/// The field manager of what a leader writes to pods and to the status of pools.
pub const LEADER_FIELD_MANAGER: &str = "burstpool-leader";
/// Annotation of a pod that waits: when it was first seen refused by the scheduler, where the pod
/// itself does not tell.
pub const REFUSED_SINCE_ANNOTATION: &str = "burstpool.io/refused-since";

/// Annotation of a pod that waits: when its reservation was given back. Nobody reads it: with it the pod
/// is of another version, for which no grant that is still on its way was meant.
pub const RELEASED_AT_ANNOTATION: &str = "burstpool.io/released-at";

/// Annotation of a node: the UID of the pool that it is of. Two pools may mean one name: pool `shop` with placement
/// `eu-west`, and pool `shop-eu` with placement `west`.
pub const POOL_UID_ANNOTATION: &str = "burstpool.io/pool-uid";

/// The name of a placement's node. The way back is not in the name, which two pools may mean: it is on the node
/// ([`POOL_LABEL`], [`POOL_UID_ANNOTATION`]).
pub fn node_name(pool: &str, placement: &str) -> String {
    format!("burst-{pool}-{placement}")
}
