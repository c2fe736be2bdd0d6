//! Azure: what a pod is there, and what Azure says about it.
//!
//! Pure: `translate` (a pod and what it refers to → a container group's body, or what cannot be
//! translated), `view`, `status` and `events` (a container group as read → what Kubernetes is told),
//! `failure` (Azure's refusals → what to do), `address`, `names`, `schedule` (when to read next). I/O: `client`,
//! `realtime` (a group's address → what its containers use), and `pace`, which every reader keeps. Knows
//! [`api`](crate::api) and nobody else of this package; nothing here knows that the emulator exists.

pub mod address;
pub mod client;
pub mod error;
pub mod events;
pub mod failure;
pub mod names;
pub mod pace;
pub mod realtime;
pub mod schedule;
pub mod status;
pub mod translate;
pub mod view;
