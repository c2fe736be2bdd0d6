//! What becomes of every field of a pod: the one table that decides, is tested and is printed.
//!
//! A type of the Kubernetes API has one list of rows; `check` walks a pod by them. A field without
//! a row is refused, so a field that a newer k8s-openapi brings cannot slip through unseen; a test
//! compares the rows with the schema of its `PodSpec`.
//!
#![doc = include_str!("../../../docs/pod-fields.md")]

mod container;
mod pod;
mod row;
mod security;
mod text;
mod volume;
mod walk;

pub use row::{Decision, Row, rows, types};
pub use text::table;
pub(super) use walk::check;
