//! The rules that a grant has to satisfy. Those that are limits have one shape, which [`limits`] describes.
//!
//! | module | rule |
//! | --- | --- |
//! | [`hold`] | how long a pod waits for a place on the cluster's own nodes |
//! | [`rate`] | how many grants a pool gives in a period |
//! | [`slots`] | the maximum numbers of replicas of a pool and its workloads |
//! | [`fairness`] | which workload goes first |
//! | [`capacity`] | how many more pods fit into a placement |
//! | [`topology`] | whether running pods let a pod in: affinity, anti-affinity, topology spread |
//! | [`expiry`] | when a grant expires because the scheduler does not place the pod |

pub mod capacity;
pub mod expiry;
pub mod fairness;
pub mod hold;
pub mod limits;
pub mod rate;
pub mod slots;
pub mod topology;
