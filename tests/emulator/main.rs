//! Tests of the emulator over HTTP, as its clients use it. The names of the tests say what the service
//! does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(missing_docs, reason = "a test's name says what it shows")]

mod admin;
mod arbitrary;
mod clients;
mod clock;
mod codes;
mod examples;
mod facts;
mod identities;
mod life;
mod operations;
mod own_client;
mod process;
mod recordings;
mod registry;
mod terminal;
mod translated;

#[path = "../support/azure.rs"]
mod azure;
#[path = "../support/optional.rs"]
mod optional;
