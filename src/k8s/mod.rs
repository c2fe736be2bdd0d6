//! What every module that uses the Kubernetes API needs.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`call`] | calls with a deadline; deletions and evictions that name the object by its UID |
//! | [`rejected`] | how long not to repeat a write that the API server rejected |
//! | [`backoff`] | the pauses of every back-off |
//! | [`events`] | Events within the API server's limits |
//! | [`watch_health`] | watches that one unreadable object cannot end, and whose failures are visible |
//! | [`containers`] | the containers of a pod: which of them are native sidecars, and which last as long as it |
//! | [`quantity`], [`label_selector`], [`resource_version`], [`time`] | formats of the Kubernetes API |

pub mod backoff;
pub mod call;
pub mod containers;
pub mod events;
pub mod label_selector;
pub mod quantity;
pub mod rejected;
pub(crate) mod resource_version;
pub mod time;
pub mod watch_health;
