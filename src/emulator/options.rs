//! The options that an emulator starts with.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::arm::throttle::ThrottleLimits;
use super::clock::ShownTime;

/// Options of an emulator. By default it imitates the service as a new subscription sees it: at real
/// speed, with simulated containers, on a free loopback port, without TLS.
#[derive(Clone, Debug)]
pub struct EmulatorOptions {
    /// Listen address. Port 0 picks a free port.
    pub listen: SocketAddr,
    /// Serve HTTPS with a CA that the emulator creates at start. `None`: plain HTTP.
    pub tls: Option<TlsOptions>,
    /// How many emulated seconds pass in one second of the host: 0.001 to 100,000.
    pub speed: f64,
    /// Which times clients see.
    pub shows: ShownTime,
    /// Simulated network round trip (host time): half before the emulator handles a request, half
    /// after.
    pub rtt: Duration,
    /// How long after its PUT a simulated group's containers run (emulated time). `None`: as recorded
    /// from the service.
    pub start_latency: Option<Duration>,
    /// How many requests ARM and the service accept before they throttle.
    pub limits: ThrottleLimits,
    /// Limits of `usages` by name. Names that are missing have the service's default limit.
    pub quotas: BTreeMap<String, u64>,
    /// How many elements one page of a LIST holds.
    pub page_size: usize,
    /// How long the tokens that the emulator issues are valid.
    pub token_lifetime: Duration,
    /// The addresses of groups in subnets.
    pub subnet_addresses: SubnetAddresses,
    /// The container engine that runs the groups. `None`: the emulator simulates them.
    pub containers: Option<EngineSocket>,
}

/// The addresses of groups in subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubnetAddresses {
    /// Private addresses, from 10.0.0.4 on, where nothing answers.
    Unreachable,
    /// Loopback addresses, where the groups' apps and realtime-metrics extensions answer.
    Loopback,
    /// This address of the machine for every group: Kubernetes accepts no loopback address as an endpoint of a Service.
    Only(Ipv4Addr),
}

/// How to find the container engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineSocket {
    /// `DOCKER_HOST` if it is set, else Docker's default socket, else podman's.
    Usual,
    /// The engine that listens on this unix socket.
    At(PathBuf),
}

/// Where to write the CA certificate that clients must trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The file for the certificate. `None`: a temporary file, which the emulator removes when it
    /// stops.
    pub ca_file: Option<PathBuf>,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            speed: 1.0,
            shows: ShownTime::HostTime,
            rtt: Duration::ZERO,
            start_latency: None,
            limits: ThrottleLimits::default(),
            quotas: BTreeMap::new(),
            page_size: 1000,
            token_lifetime: Duration::from_secs(3600),
            subnet_addresses: SubnetAddresses::Unreachable,
            containers: None,
        }
    }
}
