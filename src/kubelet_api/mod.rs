//! The kubelet API of all virtual nodes of the operator: the requests that the API server sends to a kubelet.
//!
//! In: requests over TLS, and the pods of the virtual nodes ([`NodeRegistry`]). Out: logs, commands in containers,
//! port-forwards and metrics, from Azure. Every request must be authenticated and authorized.
//!
//! ```text
//! TLS ─▶ listener ─▶ route (pod, permission) ─▶ authentication, authorization ─▶ serve
//!           ▲                                                                      ├─▶ logs ─▶ Azure
//!      certificate                                                                 ├─▶ list of pods
//!                          Azure Monitor, the group ◀── usage ◀────────────────────┼─▶ stats summary, Prometheus
//!                              upgrade (SPDY, WebSocket) ◀── streams ◀─────────────┘
//!                                 ├─▶ remote_command ─▶ exec, attach ─▶ Azure
//!                                 └─▶ port_forward ─▶ the pod's address
//!                     session_lifetime ends a stream when its pod or container ends
//! ```

mod attach;
mod auth;
mod certificate;
mod exec;
#[cfg(test)]
mod fixtures;
mod listener;
mod logs;
mod nodes;
mod pods;
mod port_forward;
mod prometheus_metrics;
mod remote_command;
mod response;
mod route;
mod server;
mod session_lifetime;
mod spdy;
mod stats_summary;
mod streams;
mod tasks;
mod ttl_cache;
mod upgrade;
mod usage;

pub use certificate::CertificateSource;
pub use listener::{KubeletApiSettings, listen};
pub use nodes::{NodeRegistry, ServedGuard};
