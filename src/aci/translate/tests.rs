//! Tests: whole pods from fixtures, and single fields.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "json! creates values that are passed on"
)]

mod file_mounts;
mod fixtures;
mod given;
mod images;
mod kept;
mod losses;
mod refused;
mod sub_paths;
mod variables;
