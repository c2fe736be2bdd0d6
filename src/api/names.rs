//! Keys of labels, annotations and taints on pods and nodes, and the name of a node.

/// Key of the taint of virtual nodes and of the toleration that a grant adds; its value is the pool's name (decision
/// D3). Existing manifests for virtual nodes tolerate this key.
pub const PROVIDER_TAINT: &str = "virtual-kubelet.io/provider";
/// Key of a taint that no pod tolerates. It only makes the scheduler prefer the cluster's own nodes when they have
/// room.
pub const LAST_RESORT_TAINT: &str = "burstpool.io/last-resort";
/// Key of the taint of a placement that takes no pods at present.
pub const CLOSED_TAINT: &str = "burstpool.io/closed";
/// Label of a node: the pool that it belongs to. Label of a pod: the pool that granted it.
pub const POOL_LABEL: &str = "burstpool.io/pool";
/// Annotation of a granted pod: the workload of the pool for which it was granted.
pub const WORKLOAD_ANNOTATION: &str = "burstpool.io/workload";
/// Annotation of a granted pod: when it was granted.
pub const GRANTED_AT_ANNOTATION: &str = "burstpool.io/granted-at";
/// Annotation of a granted pod: its own UID. A pod whose template was copied from a granted pod has the UID of the
/// original, so the copy does not count as granted. No template can contain the right UID, because the API server
/// chooses it when it creates the pod.
pub const GRANTED_UID_ANNOTATION: &str = "burstpool.io/granted-uid";
/// Annotation of a granted pod: when its grant expired, because the scheduler placed it on no virtual node.
pub const GRANT_EXPIRED_ANNOTATION: &str = "burstpool.io/grant-expired-at";
/// Annotation of a granted pod: what ACI does not keep of it, because the pool accepts it by name (`spill.accept`). The
/// names are separated by commas. A pod that loses nothing does not have it. The container group is made by this list,
/// so that a later edit of the pool does not affect a pod that is granted.
pub const NOT_KEPT_ANNOTATION: &str = "burstpool.io/not-kept";
/// The field manager of the leader's writes to pods, and to `leader` and `reservations` in the status of pools.
pub const LEADER_FIELD_MANAGER: &str = "burstpool-leader";
/// Annotation of a pending pod: when the operator first saw that the scheduler had refused it. Only pods whose own
/// condition does not show that time have it.
pub const REFUSED_SINCE_ANNOTATION: &str = "burstpool.io/refused-since";

/// Annotation of a pending pod: when its reservation was given back. No code reads it: the write gives the pod a new
/// version, so that a grant in flight, which is for the earlier version, fails.
pub const RELEASED_AT_ANNOTATION: &str = "burstpool.io/released-at";

/// Annotation of a node: the UID of the pool that owns it. The node's name does not identify the pool: pool `shop`
/// with placement `eu-west` and pool `shop-eu` with placement `west` have the same node name.
pub const POOL_UID_ANNOTATION: &str = "burstpool.io/pool-uid";

/// The name of a placement's node. The name does not show the pool, because two pools can have the same node name.
/// The pool is on the node: [`POOL_LABEL`], [`POOL_UID_ANNOTATION`].
pub fn node_name(pool: &str, placement: &str) -> String {
    format!("burst-{pool}-{placement}")
}
