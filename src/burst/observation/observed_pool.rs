//! What [`observe`](super::observe()) finds: everything that concerns one pool.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::inputs::Leadership;
use crate::aci::translate::Unsupported;
use crate::api::{LossSet, Reservation, Workload};
use crate::burst::facts::assignment::{NamespaceLabels, TargetScale};
use crate::burst::facts::eligibility::ClaimStates;
use crate::burst::facts::neighbors::Neighbors;
use crate::burst::facts::placement::PlacementFacts;
use crate::burst::facts::pod::{PodFacts, PodReference};
use crate::burst::leader_state::{LeaderState, PodWrite};
use crate::k8s::time::shifted;

/// Everything that concerns one pool.
pub struct ObservedPool<'a> {
    /// The pool's name.
    pub pool: &'a str,
    /// Whether this instance may decide for the pool.
    pub leadership: Leadership,
    /// This instance's identity in the present term.
    pub identity: &'a str,
    /// The pool's workloads, in the order of its spec.
    pub workloads: Vec<ObservedWorkload<'a>>,
    /// Pending pods of its workloads, without those that hold a grant.
    pub pending_pods: Vec<PendingPod<'a>>,
    /// Pods that the pool has granted, on any node or without one, except finished pods and expired grants.
    pub granted: Vec<GrantedPod<'a>>,
    /// Pending pods whose grants by this pool have expired, with the index of their workload.
    pub expired: Vec<(&'a PodFacts, Option<usize>)>,
    /// User-placed pods: on the pool's nodes without a grant by the pool, with the index of their workload.
    pub user_placed: Vec<(&'a PodFacts, Option<usize>)>,
    /// The pool's placements.
    pub placements: &'a [PlacementFacts],
    /// The persistent volume claims of pending pods, with what they are bound to.
    pub claims: &'a ClaimStates,
    /// Nodes and pods that affect where pending pods may run (affinity, topology spread).
    pub neighbors: &'a Neighbors,
    /// Labels of namespaces.
    pub namespaces: &'a NamespaceLabels,
    /// The pool's reservations, with what the watches show of their pods.
    pub reservations: Vec<ReservedPod<'a>>,
    /// Whether at least one of its triggers is active.
    pub is_triggered: bool,
    /// The leader's memory of this pool.
    pub leader_state: &'a LeaderState,
    /// How far the API server's clock is ahead of the operator's monotonic clock.
    pub ahead: SignedDuration,
}

impl ObservedPool<'_> {
    /// Converts a time that was written by the API server's clock (of grants, stamps and bindings) to the
    /// operator's monotonic clock.
    pub(in crate::burst) fn by_our_clock(&self, written: Timestamp) -> Timestamp {
        shifted(written, -self.ahead)
    }

    /// When the pod was granted, by the operator's monotonic clock.
    pub(in crate::burst) fn granted_at(&self, pod: &PodFacts) -> Option<Timestamp> {
        let at = pod.grant.as_ref()?.granted_at?;
        Some(self.by_our_clock(at))
    }

    /// Whether a write of this kind to the pod failed so recently that the operator does not repeat it yet.
    pub(in crate::burst) fn is_backing_off(
        &self,
        write: PodWrite,
        pod: &PodReference,
        now: Timestamp,
    ) -> bool {
        let until = self.leader_state.write_retry_at(write, &pod.uid);
        until.is_some_and(|until| now < until)
    }
}

/// A workload, with what the watches show of it.
pub struct ObservedWorkload<'a> {
    /// The entry in `spec.workloads`.
    pub spec: &'a Workload,
    /// What its pods may lose on ACI (`spill.accept`).
    pub accepted: LossSet,
    /// The scale subresource of its target. `None` if there is no target, or the scale could not be read.
    pub scale: Option<&'a TargetScale>,
    /// Why the operator cannot determine the workload's pods.
    pub selection_error: Option<String>,
    /// The workload before it that selects the same pods and therefore owns all of them.
    pub shadowed_by: Option<String>,
    /// Pods that this workload selects but that count for another workload: their number, by that workload's
    /// name. Pods on the cluster's own nodes that were never granted are in no watch, so they are not counted.
    pub owned_by_others: HashMap<String, usize>,
    /// How many pods that it selects count elsewhere and are not on the cluster's own nodes: pods that count
    /// for other workloads, and user-placed pods on other pools' nodes.
    pub running_elsewhere: u64,
}

/// A pending pod.
pub struct PendingPod<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// The index of its workload in `spec.workloads`.
    pub workload: usize,
    /// For each placement: the fields that translation refuses. `None` if the pod was not translated for it
    /// yet.
    pub refusals: Vec<Option<&'a [Unsupported]>>,
    /// Whether the pod tolerates the pool's taint although no pool has granted it.
    pub is_user_placed: bool,
    /// Whether that toleration was copied from another pod's grant: the pod carries that grant's annotations.
    pub has_foreign_grant: bool,
}

/// A pod that the pool has granted.
pub struct GrantedPod<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// The index of the workload whose maximum it counts against: the workload that selects the pod now.
    pub workload: Option<usize>,
    /// Whether it is bound to one of the pool's nodes.
    pub is_spilled: bool,
    /// Whether it is bound to a node outside the pool, such as one of the cluster's own nodes.
    pub is_home: bool,
}

/// A reservation, with what the watches show of its pod.
pub struct ReservedPod<'a> {
    /// The entry in `status.reservations`.
    pub reservation: &'a Reservation,
    /// The workload of the pool whose maximum it counts against.
    pub limited_by: LimitedBy,
    /// The pod in the watch of pending pods, if this pool has not granted it.
    pub waiting: Option<&'a PodFacts>,
    /// The pod in the watch of pending pods, if this pool has granted it.
    pub in_flight: Option<&'a PodFacts>,
    /// The pod as the watch of pending pods last showed it, if it has left that watch and no other shows it yet.
    pub departed: Option<&'a PodFacts>,
    /// Whether the reservation no longer counts: the pod counts as granted itself, cannot be granted any longer
    /// (for example because it is bound), was granted by another pool, or is gone.
    pub is_settled: bool,
    /// Whether the pod is in no watch and the reservation still counts.
    pub is_unwatched: bool,
}

/// The workload whose maximum a reservation counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// The workload at this index in `spec.workloads`. It selects the pod now.
    Workload(usize),
    /// No workload of the pool selects the pod.
    NoWorkload,
    /// Unknown: the pod is in no watch, and no workload has the name in the reservation. It counts against the
    /// maximum of every workload.
    Unknown,
}

impl ObservedWorkload<'_> {
    /// Counts a pod that another workload owns.
    pub(super) fn add_owned_by_other(&mut self, to: String, is_at_home: bool) {
        *self.owned_by_others.entry(to).or_default() += 1;
        self.running_elsewhere += u64::from(!is_at_home);
    }
}
