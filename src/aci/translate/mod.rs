//! A pod as a container group: all of it, or the names of what cannot be kept.
//!
//! In: a pod, what its references resolved to, whose it is and where it goes. Out: the body of the
//! group's PUT, or every field that ACI cannot keep and why. Pure: no clock, no client; `burst` asks
//! [`eligible`] before a grant, `node` asks [`needs()`] and [`translate`] after the binding.
//!
//! ```text
//! raw pod ─▶ decode ─▶ Pod + unknown fields ─▶ eligible ─▶ granted, bound
//!                       Pod ─▶ needs ─▶ (node::environment reads) ─▶ Resolved ─▶ translate ─▶ Group
//! ```
//!
//! No field is lost: [`decisions`] has one row for every field of the pod's schema, and the walk over
//! it refuses what has no row. A row says *translated*, *meaningless here* or *refused*; what depends
//! on a value (a named port that is missing, 60 containers) is refused by the topic that builds that
//! part. [`eligible`] is the same walk and the same building with placeholders for what only the
//! cluster knows, so that the two cannot disagree but for what a value shows: a key of `envFrom` that
//! is no name on ACI, a value that is no text, a command that refers to a variable that `envFrom`
//! takes from a Secret, a pull secret that cannot be read, a claim of something else than a share (whoever
//! grants looks behind claims as well).
//!
//! | topic | holds |
//! | --- | --- |
//! | [`decisions`] | the table, the walk over it, the table as text |
//! | `pod` | [`eligible`] and [`translate`] |
//! | `containers`, `probes`, `security` | one container each |
//! | `env`, `expansion`, `services`, `downward` | the environment |
//! | `resources`, `asked`, [`quantity`] | CPU and memory in ACI's steps |
//! | `volumes`, `files`, `shares`, [`claims`] | volumes and their content |
//! | `registry`, `image` | credentials for pulling |
//! | `network`, `dns`, [`kube_proxy`] | ports, address, name servers, Services |
//! | [`annotations`] | what a user may ask for beyond the pod's fields |
//! | [`mod@needs`], [`resolved`] | what a pod refers to, and what that was |
//! | [`body`], [`concealed`] | the PUT's body; text that no log shows |

pub mod annotations;
mod asked;
pub mod body;
pub mod claims;
pub mod concealed;
mod containers;
pub mod decisions;
mod decode;
mod dns;
mod downward;
mod env;
mod expansion;
mod files;
mod image;
pub mod kube_proxy;
pub mod needs;
mod network;
mod placement;
mod pod;
mod printable;
mod probes;
pub mod quantity;
mod realtime;
mod refusals;
mod registry;
pub mod resolved;
mod resources;
mod security;
mod services;
mod shares;
mod volumes;

pub use body::Group;
pub use decisions::table;
pub use decode::decode;
pub use needs::{Needs, needs};
pub use placement::{Identities, NO_IDENTITIES, Placement};
pub use pod::{eligible, translate};
pub use refusals::Unsupported;
pub use resolved::Resolved;
pub use resources::group_cpu;

#[cfg(test)]
mod tests;
