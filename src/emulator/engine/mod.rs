//! Runs container groups as containers of Docker or podman, through the Docker API on a unix socket.
//!
//! In: the emulated service's decisions about a group (`deploy`, `restart`, `stop`, `remove`) and
//! client requests for a container (`logs`, `exec`, `attach`). Out: containers and directories on the
//! host, and reports about them. A report calls a transition of [`super::group::lifecycle`] under the
//! store's lock with the emulator's time.
//!
//! ```text
//! arm, admin ─command─▶ groups ─▶ deployment ─▶ supervision ─▶ report ─▶ store
//!                         │          │             └─▶ probe
//!                         │          ├─▶ images, volumes, spec (pure), pause
//!                         └─▶ teardown          └──▶ client ─▶ engine
//! stream ─▶ terminal (hijack)   arm::containers ─▶ logs
//! ```
//!
//! * Each group has one worker. A newer command ends the work on an older one, and the worker waits
//!   for that end, so no two commands of a group ever run at the same time. The worker interrupts only waits,
//!   never a call that creates something: so it knows of everything that the engine created.
//! * All containers of a group share one network address: an infra container (`pause`) holds the
//!   network, the others join it.
//! * Volumes are directories of this machine, below one directory per emulator. The engine must
//!   therefore run on the same machine. `gitRepo` volumes (the emulator clones nothing) and secret references
//!   are empty directories; Azure file shares are directories that groups of this emulator share.
//!   The emulator ignores `configMap`, GPUs and seccomp profiles: Azure does not document their effect.
//! * CPU limits are capped at the machine's CPUs: an engine rejects more.
//! * Pauses before restarts follow the emulator's clock; the processes themselves run in real time. `probe`
//!   describes the probes.
//! * Every container and directory is labelled with its emulator (`instance`). An emulator removes
//!   what a crashed emulator left, and never touches what belongs to a live one.

mod cleanup;
mod client;
mod deployment;
mod error;
mod groups;
mod hijack;
mod http_probe;
mod images;
mod instance;
mod listing;
mod logs;
mod pause;
mod probe;
mod report;
mod socket;
mod spec;
mod supervision;
mod teardown;
mod terminal;
mod volumes;

pub use error::EngineError;
pub use groups::Engine;
pub use images::InaccessibleImage;
pub use socket::candidates;
pub use terminal::Terminal;
