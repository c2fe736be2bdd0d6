//! What the operator watches and reads of the cluster, from which grants are planned.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`cluster`] | watches of pools, nodes, namespaces and pods: the snapshot from which plans are made |
//! | [`claims`] | persistent volume claims of pending pods, read by name |
//! | [`neighbors`] | nodes and bound pods, listed only while a pending pod has topology rules |
//! | [`scales`] | the scale subresources of workloads' targets |

pub(crate) mod claims;
pub(crate) mod cluster;
pub(crate) mod neighbors;
pub(crate) mod scales;
