//! Azure Container Instances: how a pod becomes a container group, and how a container group becomes a pod status.
//!
//! In: pods with the objects that they refer to, and Azure's answers. Out: bodies of container groups, pod statuses
//! and Events, and what to do about a failure.
//!
//! - Pure: `translate` (pod → body of a container group, or the fields that ACI does not support), `response` (parses
//!   Azure's answers), `status` and `events` (container group → pod status and Events), `failure` (Azure's error →
//!   class, and when to retry), `address` (reserved IP addresses), `names` (a group's name and tags),
//!   `poll_interval` (when to read a group again), `pre_stop` and `probe` (decode the hooks and probes of containers),
//!   `retry_after_header` (how long an answer asks to wait), `expiring_map` (a limited cache).
//! - I/O: `client` (Azure's HTTP API) with `error`, `image` (configurations of images from their registries),
//!   `realtime_metrics` (a group's address → what its containers use), `shell` (commands in containers) and
//!   `rate_limiter` (shared by all reads).
//!
//! This module uses [`api`](crate::api), `k8s` and `telemetry`. Nothing in it refers to the emulator.

pub mod address;
pub mod client;
pub mod error;
pub mod events;
pub mod expiring_map;
pub mod failure;
pub mod image;
pub mod names;
pub mod poll_interval;
pub mod pre_stop;
pub mod probe;
pub mod rate_limiter;
pub mod realtime_metrics;
pub mod response;
mod retry_after_header;
pub mod shell;
pub mod status;
pub mod translate;
