//! Free loopback ports for the components.
//!
//! In: nothing. Out: [`Ports`]. Another process may take a port after it was chosen and before its
//! component listens; then [`super::Cluster::start`] tries again.

use std::net::{Ipv4Addr, TcpListener};

use crate::support::Error;

/// The ports of one cluster.
pub struct Ports {
    /// etcd's client port.
    pub etcd: u16,
    /// etcd's peer port. etcd listens there even without peers.
    pub etcd_peers: u16,
    /// The API server.
    pub api_server: u16,
    /// The scheduler's health and metrics.
    pub scheduler: u16,
    /// The controller manager's health and metrics.
    pub controller_manager: u16,
    /// metrics-server's API.
    pub metrics_server: u16,
}

impl Ports {
    /// Chooses different ports on which no process listens.
    pub fn free() -> Result<Self, Error> {
        // Keep all listeners until all ports are chosen.
        let (mut held, mut chosen) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let listener = free()?;
            chosen.push(
                listener
                    .local_addr()
                    .map_err(Error::io("reading a port"))?
                    .port(),
            );
            held.push(listener);
        }
        Ok(Self {
            etcd: chosen[0],
            etcd_peers: chosen[1],
            api_server: chosen[2],
            scheduler: chosen[3],
            controller_manager: chosen[4],
            metrics_server: chosen[5],
        })
    }
}

/// A listener on a random port below the range from which the kernel chooses (from 32768 on Linux), so
/// that none of the many connections that start at the same time can take the port. If a hundred ports
/// are taken, the kernel chooses one.
fn free() -> Result<TcpListener, Error> {
    (0..100)
        .map(|_| rand::random_range(12_000..32_000))
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .map_or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), Ok)
        .map_err(Error::io("looking for a free port"))
}
