//! The kubelet API of all virtual nodes of the process: what the API server asks a kubelet for.
//!
//! In: requests over TLS, and the pods that the nodes' keepers know ([`Nodes`]). Out: logs, commands in
//! containers, ports and numbers, from Azure. Nobody comes in without a name, nor without the right.
//!
//! ```text
//! TLS ─▶ listener ─▶ route (which pod, which right) ─▶ callers (who, may they) ─▶ serve
//!           ▲                                                                      ├─▶ logs ─▶ Azure
//!      certificate                                                                 ├─▶ listing
//!                                     Azure Monitor, the group ◀── usage ◀────────┼─▶ numbers, scraped
//!                              upgrade (SPDY, websocket) ◀── streams ◀───────────┘
//!                                 ├─▶ remote_command ─▶ exec, attach ─▶ Azure
//!                                 └─▶ port_forward ─▶ the pod's address
//!                              session ends each with what it was opened to, such as the pod
//! ```

mod answer;
mod attach;
mod callers;
mod certificate;
mod exec;
#[cfg(test)]
mod given;
mod listener;
mod listing;
mod logs;
mod nodes;
mod numbers;
mod port_forward;
mod recently;
mod remote_command;
mod route;
mod scraped;
mod serve;
mod session;
mod spdy;
mod streams;
mod tasks;
mod upgrade;
mod usage;

pub use certificate::Source;
pub use listener::{Settings, listen};
pub use nodes::{Nodes, Served};
