//! Azure Resource Manager and Container Instances on localhost.
//!
//! In: HTTP requests of any Azure client, and of whoever wants something to go wrong. Out: what the
//! service answers on the wire, as it was recorded, not as the examples of its specification
//! pretend. A server that tests start in process ([`Emulator::start`]); `aci-emulator` is its thin
//! binary.
//!
//! ```text
//! request ─▶ server ─▶ arm (route, version, faults, throttle) ─▶ store ─▶ answer
//!                └──▶ stream (exec, attach)      admin ──▶ ▲  │
//!                                                          │  ├─▶ group (validate, life, view): pure
//!                                                          │  └─▶ engine: real containers
//!                                                        clock
//! ```
//!
//! | room | what it holds |
//! | --- | --- |
//! | [`server`] | listening, TLS, routing by path, dropping connections on demand |
//! | [`arm`] | the face of ARM: one request, one answer |
//! | [`group`] | a container group: validation, life cycle, instance view; pure |
//! | [`store`] | everything there is, behind one lock |
//! | [`engine`] | groups as containers of Docker or podman |
//! | [`stream`] | exec and attach over websockets |
//! | [`realtime`] | what containers use, at the addresses of their groups |
//! | [`admin`] | `/_emulator/`: faults, clock, quotas, timeline, page |
//! | [`clock`] | the only time there is, and what clients see of it |
//!
//! Nothing here is written to disk but a CA certificate when it is asked for, and the volumes of
//! groups that an engine runs, in a temporary directory; state ends with the process.

pub mod admin;
pub mod arm;
pub mod cli;
pub mod clock;
pub mod counters;
pub mod engine;
pub mod faults;
pub mod group;
pub mod options;
pub mod realtime;
pub mod server;
pub mod shared;
pub mod store;
pub mod stream;
pub mod timeline;
pub mod tls;

pub use clock::Shows;
pub use options::{EngineSocket, Options, Tls};
pub use server::{Emulator, StartError};
