//! What plans are made from: the fields of pods, nodes and other objects that matter for bursting.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`pod`], [`resource_amounts`], [`node_constraints`], [`topology_rules`] | the fields of a pod that matter |
//! | [`placement`] | the fields of a virtual node that matter |
//! | [`assignment`] | the pool and the workload that a pod belongs to |
//! | [`eligibility`] | whether ACI can run a pod (calls `aci::translate` once for each version) |
//! | [`jobs`] | what the eviction of a Job's pod costs |
//! | [`neighbors`] | the nodes and bound pods that affect where a pod may run |
//! | [`versions`] | whether a watch shows the version of a pod that was reserved |

pub mod assignment;
pub mod eligibility;
pub mod jobs;
pub mod neighbors;
pub mod node_constraints;
pub mod placement;
pub mod pod;
pub mod resource_amounts;
pub mod topology_rules;
pub mod versions;
