//! The field table: for every field of a pod, whether burstpool translates, ignores or refuses it.
//!
//! In: a pod's spec. Out: a refusal for each field that ACI does not support (`check`), and the table as Markdown
//! ([`markdown_table`]). Each type of the Kubernetes API has one list of rows, and `check` walks a pod along these
//! rows. A field without a row is refused, so a field that a newer k8s-openapi adds is never dropped silently. A test
//! compares the rows with the schema of `PodSpec` in k8s-openapi.
//!
#![doc = include_str!("../../../docs/pod-fields.md")]

mod container;
mod markdown;
mod pod;
mod row;
mod security;
mod volume;
mod walk;

pub use markdown::markdown_table;
pub use row::{FieldDecision, FieldEffect, FieldRow, rows, types, waits_for_helper};
pub(super) use walk::check;
