//! Translates a pod to a container group, or names every field that ACI does not support.
//!
//! In: a pod, the resolved objects that it refers to, the group's owner, and the placement. Out: the body of the
//! group's PUT, or all unsupported fields with the reason for each. Pure: no clock and no client. `burst` calls
//! [`eligible`] before a grant; `node` calls [`pod_references`] and [`translate`] after the scheduler has bound
//! the pod.
//!
//! ```text
//! before the grant:  JSON ─▶ decode ─▶ Pod, unknown fields ─▶ eligible ─▶ grant, or Unsupported fields
//! after the binding: Pod ─▶ pod_references ─▶ PodReferences ─▶ (node::environment reads the objects)
//!                    Pod ─▶ image_requests ─▶ ImageRequest ─▶ (node::pods reads the images)
//!                        ─▶ ResolvedReferences ─▶ translate ─▶ Group, or Unsupported fields
//! ```
//!
//! No field is lost: [`field_table`] has one row for every field of the pod's schema, and the walk over the table
//! refuses a field that has no row. A row says *translated*, *meaningless here* or *refused*. Limits that depend on
//! a value (a named port that does not exist, 61 containers) are checked by the submodule that builds that part.
//!
//! [`eligible`] runs the same walk and the same build, with placeholders for values that only the cluster knows.
//! The two can disagree only where an actual value matters: a key from `envFrom` that is not a valid variable name
//! on ACI, a value that is not text, a command that refers to a variable that `envFrom` takes from a Secret, a missing
//! key that a mount selects by `subPath`, a pull secret that cannot be read, an image with the user root or another
//! working directory, or a claim with a volume that is not an Azure Files share (before a grant, the caller checks the
//! volumes of claims as well).
//!
//! | submodule | holds |
//! | --- | --- |
//! | [`field_table`] | the field table, the walk over it, the table as Markdown |
//! | `decode`, `target` | the inputs: the pod with its unknown fields, and the placement with its node |
//! | `pod` | [`eligible`] and [`translate`] |
//! | `containers`, `probes`, `readiness`, `security` | one container each |
//! | `groups` | whether additional groups can have an effect |
//! | `env`, `expansion`, `services` | environment variables |
//! | `downward`, `printable` | a pod's own fields and resources as values of variables and files |
//! | `resources`, `requests` | CPU and memory in ACI's steps |
//! | `volumes`, `sub_paths`, `file_mounts`, `files`, `azure_files`, [`claims`] | volumes and their content |
//! | `registry`, `image` | credentials for pulling images |
//! | `image_requests` | the images that must be read, and with which credentials |
//! | `network`, `dns` | ports, IP address, name servers |
//! | [`kube_proxy`], `realtime_metrics` | extensions: access to Services, current usage |
//! | [`annotations`] | annotations that configure what a pod's fields cannot |
//! | [`mod@references`], [`resolved_references`] | the objects that a pod refers to, and their content |
//! | [`body`], [`secret_string`] | the PUT's body; strings that logs never print |
//! | `refusals` | the unsupported fields, each with the reason |

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
mod file_mounts;
mod files;
mod groups;
mod image;
mod image_requests;
pub mod kube_proxy;
mod network;
mod pod;
mod printable;
mod probes;
mod readiness;
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
mod sub_paths;
mod target;
mod volumes;

pub use body::Group;
pub use decode::decode;
pub use field_table::markdown_table;
pub use image_requests::{ImageRequest, image_requests};
pub use pod::{eligible, translate};
pub use readiness::{ReadinessJudge, node_probes, readiness_judge, startup_probe};
pub use references::{PodReferences, pod_references};
pub use refusals::{Unsupported, accept_losses};
pub use resolved_references::ResolvedReferences;
pub use resources::group_cpu;
pub use target::{IdentityNamespaces, NO_IDENTITIES, TranslationTarget};

#[cfg(test)]
mod tests;
