//! Whole pods: fixtures and what is said about single fields.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod fixtures;
mod given;
