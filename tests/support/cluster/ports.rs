//! Free loopback ports for the components.
//!
//! In: nothing. Out: [`Ports`]. A port is free when chosen, and may be taken when its component
//! listens a moment later; [`super::Cluster::start`] then starts anew.

use std::net::{Ipv4Addr, TcpListener};

use crate::support::Error;

/// The ports of one cluster.
pub struct Ports {
    /// etcd for clients.
    pub etcd: u16,
    /// etcd for its peers, of which there are none; it listens nonetheless.
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
    /// Chooses ports that nobody listens on, each its own.
    pub fn free() -> Result<Self, Error> {
        // All are held until all are chosen.
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

/// A listener on a random port below those that the kernel hands out (from 32768 on Linux): none of
/// the many connections that start at the same time can take it in the meantime, as one could with a
/// port that the kernel chose. If a hundred are taken, the kernel chooses.
fn free() -> Result<TcpListener, Error> {
    (0..100)
        .map(|_| rand::random_range(12_000..32_000))
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .map_or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), Ok)
        .map_err(Error::io("looking for a free port"))
}
