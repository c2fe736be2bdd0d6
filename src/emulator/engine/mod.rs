//! Container groups as containers of Docker or podman, through the Docker API on a unix socket.
//!
//! In: what the emulated service decided about a group (`deploy`, `restart`, `stop`, `remove`) and
//! what its clients ask of a container (`logs`, `exec`, `attach`). Out: containers and directories
//! of the host, and reports of what became of them: the transitions of [`super::group::life`],
//! called under the store's lock with the emulator's time.
//!
//! ```text
//! arm, admin ─wish─▶ groups ─▶ deployment ─▶ supervise ─▶ report ─▶ store
//!                      │          │             └─▶ probe
//!                      │          ├─▶ images, volumes, spec (pure), pause
//!                      └─▶ teardown          └──▶ client ─▶ engine
//! stream ─▶ terminal (hijack)   arm::containers ─▶ logs
//! ```
//!
//! * One worker a group; a newer wish ends the work on an older one, which is waited for, so that
//!   nothing of a group ever happens at the same time. Only waiting is interrupted, never a call
//!   that makes something: what an engine has made, it has also told.
//! * A group is one network address: an infra container (`pause`) holds the network, the others
//!   join it.
//! * Volumes are directories of this machine below one directory of this emulator, so the engine
//!   must run on the same machine. `gitRepo` volumes (nothing is cloned) and secret references
//!   are empty directories, Azure file shares are directories that groups of this emulator share. `configMap`, GPUs and
//!   seccomp profiles are not carried out: how the service shows them to a container is not documented.
//! * CPU limits are held to what the machine has: an engine refuses more.
//! * Restarts wait by the emulator's clock; the processes themselves live in real time. Probes are
//!   described in `probe`.
//! * Everything carries labels (`instance`), so that one emulator can remove what a crashed one
//!   left and never touches what a living one has.

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
mod supervise;
mod sweep;
mod teardown;
mod terminal;
mod volumes;

pub use error::Error;
pub use groups::Engine;
pub use images::Inaccessible;
pub use socket::candidates;
pub use terminal::Terminal;
