//! Azure: what a pod is there, and what Azure says about it.
//!
//! Pure: `translate` (a pod and what it refers to → a container group's body, or what cannot be
//! translated), `view` and `status` (a container group as read → the pod's status), `names`. I/O:
//! `client` with its `credential`, `throttle` and `poller`. Knows [`api`](crate::api) and nobody else
//! of this package; nothing here knows that the emulator exists.

pub mod names;
pub mod translate;
