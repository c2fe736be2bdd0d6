//! An emulator of Azure Resource Manager (ARM) and Azure Container Instances (ACI) on localhost.
//!
//! In: HTTP requests from any Azure client, and requests to `/_emulator/` that inject faults or move
//! the clock. Out: the same responses as the real service. They follow recordings of the service; its
//! published examples differ from them in places. Tests start the server in process
//! ([`Emulator::start`]); the binary `aci-emulator` only wraps it.
//!
//! ```text
//! request ─▶ server ─▶ arm (route, version, faults, throttle) ─▶ store ─▶ answer
//!                └──▶ stream (exec, attach)      admin ──▶ ▲  │
//!                                                          │  ├─▶ group (validate, lifecycle, view): pure
//!                                                          │  └─▶ engine: real containers
//!                                                        clock
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`server`] | listening, TLS, routing by path, dropping connections on demand |
//! | [`arm`] | the ARM API: one request, one response |
//! | [`group`] | a container group: validation, life cycle, instance view; pure |
//! | [`store`] | the whole state of the emulated Azure, behind one lock |
//! | [`engine`] | runs container groups as containers of Docker or podman |
//! | [`stream`] | exec and attach over websockets |
//! | [`apps`] | the apps in simulated containers, served at the addresses of their groups |
//! | [`realtime`] | the current CPU and memory use of containers, served at the addresses of their groups |
//! | [`admin`] | `/_emulator/`: faults, clock, quotas, timeline, page |
//! | [`faults`] | rules that make requests fail, wait or lose their response |
//! | [`timeline`], [`counters`] | the times of each group; the requests by operation and status |
//! | [`state`] | what all request handlers and tasks share |
//! | [`cli`], [`options`], [`tls`] | the command line, the options, certificates for loopback |
//! | [`clock`] | the only source of time in the emulator, and the times that clients see |
//!
//! All state is in memory and ends with the process. The emulator writes only two things to disk: the
//! CA certificate of a TLS server, and in a temporary directory the volumes of groups that a container
//! engine runs.

pub mod admin;
pub mod apps;
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
pub mod state;
pub mod store;
pub mod stream;
pub mod timeline;
pub mod tls;

pub use clock::ShownTime;
pub use options::{EmulatorOptions, EngineSocket, SubnetAddresses, TlsOptions};
pub use server::{Emulator, StartError};
