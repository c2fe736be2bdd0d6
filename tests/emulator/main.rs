//! Tests of the emulator over HTTP, as its clients use it. The names of the tests say what the service
//! does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(missing_docs, reason = "a test's name says what it shows")]

mod admin;
mod arbitrary_requests;
mod clients;
mod clock;
mod coverage;
mod error_codes;
mod examples;
mod life_cycle;
mod login;
mod operations;
mod operator_client;
mod process;
mod recordings;
mod registry;
mod service_facts;
mod terminal;
mod translation;

#[path = "../support/azure.rs"]
mod azure;
#[path = "../support/optional.rs"]
mod optional;
#[path = "../support/registry.rs"]
mod registry_server;
