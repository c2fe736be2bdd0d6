//! Translates a pod to a container group, or names every field that ACI does not support.
//!
//! In: a pod, the resolved objects that it refers to, the group's owner, and the placement. Out: the body of the
//! group's PUT, or all unsupported fields with the reason for each. Pure: no clock and no client. `burst` calls
//! [`eligible`] before a grant; `node` calls [`references::pod_references`] and [`translate`] after the scheduler has bound the pod.
//!
//! ```text
//! raw pod ─▶ decode ─▶ Pod + unknown fields ─▶ eligible ─▶ granted, bound
//!                       Pod ─▶ needs ─▶ (node::environment reads) ─▶ Resolved ─▶ translate ─▶ Group
//! ```
//!
//! No field is lost: [`field_table`] has one row for every field of the pod's schema, and the walk over the table
//! refuses a field that has no row. A row says *translated*, *meaningless here* or *refused*. Limits that depend on
//! a value (a named port that does not exist, 61 containers) are checked by the submodule that builds that part.
//!
//! [`eligible`] runs the same walk and the same build, with placeholders for values that only the cluster knows.
//! The two can disagree only where an actual value matters: a key from `envFrom` that is not a valid variable name
//! on ACI, a value that is not text, a command that refers to a variable that `envFrom` takes from a Secret, a pull
//! secret that cannot be read, or a claim whose volume is not an Azure Files share (before a grant, the caller
//! checks the volumes of claims as well).
//!
//! | submodule | holds |
//! | --- | --- |
//! | [`field_table`] | the field table, the walk over it, the table as text |
//! | `pod` | [`eligible`] and [`translate`] |
//! | `containers`, `probes`, `security` | one container each |
//! | `env`, `expansion`, `services`, `downward` | environment variables |
//! | `resources`, `asked`, [`quantity`] | CPU and memory in ACI's steps |
//! | `volumes`, `files`, `shares`, [`claims`] | volumes and their content |
//! | `registry`, `image` | credentials for pulling images |
//! | `image_requests` | the images that must be read, and with which credentials |
//! | `network`, `dns`, [`kube_proxy`] | ports, IP address, name servers, Services |
//! | [`annotations`] | annotations that configure what a pod's fields cannot |
//! | [`mod@references`], [`resolved_references`] | the objects that a pod refers to, and their content |
//! | [`body`], [`secret_string`] | the PUT's body; strings that logs never print |

pub mod annotations;
mod azure_files;
pub mod body;
pub mod claims;
mod containers;
mod decode;
mod dns;
mod downward;
mod env;
mod expansion;
pub mod field_table;
mod files;
mod image;
mod image_requests;
pub mod kube_proxy;
mod network;
mod pod;
mod printable;
mod probes;
mod realtime_metrics;
pub mod references;
mod refusals;
mod registry;
mod requests;
pub mod resolved_references;
mod resources;
pub mod secret_string;
mod security;
mod services;
mod target;
mod volumes;

pub use body::Group;
pub use decode::decode;
pub use field_table::markdown_table;
pub use image_requests::{ImageRequest, image_requests};
pub use pod::{eligible, translate};
pub use references::{PodReferences, pod_references};
pub use refusals::Unsupported;
pub use resolved_references::ResolvedReferences;
pub use resources::group_cpu;
pub use target::{IdentityNamespaces, NO_IDENTITIES, TranslationTarget};

#[cfg(test)]
mod tests;
