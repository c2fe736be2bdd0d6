//! Why the placements of a pool could not be read or drained.

use std::time::Duration;

use thiserror::Error;

/// A failed call, or a drain that did not finish in time. The next reconciliation tries it again.
#[derive(Debug, Error)]
pub(in crate::controller) enum Error {
    /// Listing the pods on a node failed.
    #[error("cannot list the pods on node {node}")]
    ListPods {
        /// The node's name.
        node: String,
        /// Why the call failed.
        #[source]
        source: kube::Error,
    },
    /// Listing the nodes of a pool failed.
    #[error("cannot list the nodes of pool {pool}")]
    ListNodes {
        /// The pool's name.
        pool: String,
        /// Why the call failed.
        #[source]
        source: kube::Error,
    },
    /// Reading a node failed.
    #[error("cannot read node {node}")]
    ReadNode {
        /// The node's name.
        node: String,
        /// Why the call failed.
        #[source]
        source: kube::Error,
    },
    /// Looking for a pool failed.
    #[error("cannot find out whether pool {pool} exists")]
    FindPool {
        /// The pool's name.
        pool: String,
        /// Why the call failed.
        #[source]
        source: kube::Error,
    },
    /// The drain of a deleted pool did not finish in time. It continues with the next try.
    #[error("draining took longer than {} s", .0.as_secs())]
    DrainTimeout(Duration),
}
