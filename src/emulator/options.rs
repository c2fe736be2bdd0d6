//! What an emulator is started with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::arm::throttle::Limits;
use super::clock::Shows;

/// Settings of an emulator. The default is the service as a fresh subscription sees it, at real
/// speed, simulated, on a free loopback port, without TLS.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether to speak TLS, with a CA made for this run.
    pub tls: Option<Tls>,
    /// How many emulated seconds pass in one of the host's: 0.001 to 100,000.
    pub speed: f64,
    /// Which times it shows.
    pub shows: Shows,
    /// How far away it seems: half of it passes before a request is looked at, half after.
    pub rtt: Duration,
    /// After how long a group's containers run; as recorded of the service if not given.
    pub start_latency: Option<Duration>,
    /// How many requests ARM and the service allow.
    pub limits: Limits,
    /// Limits of `usages` by name, other than the service's defaults.
    pub quotas: BTreeMap<String, u64>,
    /// How many elements a LIST answers at once.
    pub page_size: usize,
    /// How long the tokens that it gives are good for.
    pub token_lifetime: Duration,
    /// Whether groups in subnets have addresses of loopback, at which their realtime-metrics extensions
    /// answer; else their addresses lead nowhere.
    pub loopback_subnets: bool,
    /// The container engine that runs the groups for real; simulated if not given.
    pub containers: Option<EngineSocket>,
}

/// Which container engine to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineSocket {
    /// The one that `DOCKER_HOST` names, else Docker's, else podman's usual socket.
    Usual,
    /// The one that listens on this unix socket.
    At(PathBuf),
}

/// Where the CA certificate goes that clients must trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The file to write it to; a temporary one, removed at the end, if not given.
    pub ca_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            speed: 1.0,
            shows: Shows::HostTime,
            rtt: Duration::ZERO,
            start_latency: None,
            limits: Limits::default(),
            quotas: BTreeMap::new(),
            page_size: 1000,
            token_lifetime: Duration::from_secs(3600),
            loopback_subnets: false,
            containers: None,
        }
    }
}
