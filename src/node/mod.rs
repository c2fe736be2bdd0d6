//! The virtual node: a Node object that burstpool registers, and its pods, which run as ACI container groups.
//!
//! In: the settings of a placement, the pods that the scheduler binds to the node, and Azure's answers. Out: the
//! Node object and its lease, container groups in Azure, and pod statuses and Events in Kubernetes.
//!
//! Pure: [`node_object`] (the Node object), [`last_placement`] (the annotation from which the node can be drained
//! later), [`registration_steps`] (what corrects the live Node object), [`capacity`] (how much of ACI the node may
//! offer), [`pod_plan`] (the next action for a pod), [`absence_proof`] (when a container group counts as gone),
//! [`daemon_set`] (pods of a `DaemonSet`), [`post_bind_patch`] (the patch of a pod after it is bound),
//! [`watched_pod`] (how a pod from a watch is decoded).
//!
//! I/O: [`node_controller`] and [`lease`] keep the Node object and its lease up to date, [`region`] asks Azure for
//! the region's usage, [`quota`] divides what is left among the region's placements, [`pods`] runs the pods,
//! [`environment`] reads the objects that pods refer to, [`service_cache`] watches the Services, [`probe`] runs
//! readiness and startup probes.
//!
//! Depends on [`k8s`](crate::k8s), [`telemetry`](crate::telemetry), [`api`](crate::api), [`aci`](crate::aci) and,
//! for the facts about pods, [`burst`](crate::burst).

pub mod absence_proof;
pub mod capacity;
pub mod daemon_set;
pub mod environment;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod last_placement;
pub mod lease;
pub mod node_controller;
pub mod node_object;
pub mod pod_plan;
pub mod pods;
pub mod post_bind_patch;
pub mod probe;
pub mod quota;
pub mod region;
pub mod registration_steps;
pub mod service_cache;
pub mod watched_pod;
